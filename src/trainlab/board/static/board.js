"use strict";
// What changes is asked for while somebody looks: elements with hx-trigger="refresh from:body" take part.
setInterval(() => {
  if (!document.hidden) document.body.dispatchEvent(new Event("refresh"));
}, 2000);

// An answer that the page shows already comes as 204: each element says what it has seen.
document.addEventListener("htmx:configRequest", (event) => {
  const seen = event.detail.target?.dataset.seen;
  if (seen && event.detail.verb === "get") event.detail.headers["X-Seen"] = seen;
});
document.addEventListener("htmx:afterRequest", (event) => {
  const seen = event.detail.xhr.getResponseHeader("X-Seen");
  if (seen && event.detail.target) event.detail.target.dataset.seen = seen;
});

// A refusal is a sentence above the page, and changes nothing below. What a look brought, the next one takes away.
const told = document.getElementById("told");
const tell = (words, wrong, looked = false) => {
  told.textContent = words;
  told.className = wrong ? "wrong" : "";
  told.hidden = !words;
  told.dataset.looked = looked ? "yes" : "";
};
const isLook = (event) => event.detail.requestConfig.verb === "get";
document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail, plain = xhr.getResponseHeader("Content-Type")?.startsWith("text/plain");
  tell(plain ? xhr.responseText : `Not answered (${xhr.status}). Load the page again.`, true, isLook(event));
});
document.addEventListener("htmx:sendError", (event) => {
  tell("The board does not answer. Does the stack run?", true, isLook(event));
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (!event.detail.successful) return;
  if (told.dataset.looked) tell("");
  const typing = document.activeElement?.matches("input, textarea, select");
  if (event.detail.xhr.getResponseHeader("X-Grown") && !typing) location.reload(); // a new curve, say
});
document.addEventListener("htmx:beforeSwap", (event) => { // led elsewhere: to a login, once a session has ended
  const asked = new URL(event.detail.pathInfo.finalRequestPath, location), { responseURL } = event.detail.xhr;
  if (responseURL && new URL(responseURL).pathname !== asked.pathname) {
    event.detail.shouldSwap = false;
    location.reload();
  }
});
document.addEventListener("told", (event) => tell(event.detail.value, false)); // HX-Trigger: {"told": "…"}
