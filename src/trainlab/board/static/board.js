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

// A refusal is a sentence above the page, and changes nothing below.
const told = document.getElementById("told");
const tell = (words, wrong) => {
  told.textContent = words;
  told.className = wrong ? "wrong" : "";
  told.hidden = !words;
};
document.addEventListener("htmx:responseError", (event) => tell(event.detail.xhr.responseText, true));
document.addEventListener("htmx:sendError", () => tell("The board does not answer. Does the stack run?", true));
document.addEventListener("told", (event) => tell(event.detail.value, false)); // HX-Trigger: {"told": "…"}
