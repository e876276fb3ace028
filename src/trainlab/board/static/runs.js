"use strict";
// Ticks and open folds outlive a swap of the rows, another order or filter, and the way back from a run.
const table = document.getElementById("runs");
const kept = (name) => new Set(JSON.parse(sessionStorage.getItem(name) ?? "[]"));
const ticked = kept("ticked"), opened = kept("opened");

const note = (set, name, value, there) => {
  there ? set.add(value) : set.delete(value);
  sessionStorage.setItem(name, JSON.stringify([...set]));
};
const boxes = () => [...table.querySelectorAll("input[name=run]")];
const count = () => {
  const number = boxes().filter((box) => box.checked).length;
  document.getElementById("ticked").textContent = number ? ` ${number}` : "";
  for (const button of document.querySelectorAll("#do button")) button.disabled = !number;
};
const restore = () => {
  for (const box of boxes()) box.checked = ticked.has(box.value);
  for (const fold of table.querySelectorAll("details")) fold.open = opened.has(fold.id);
  for (const button of table.querySelectorAll("button.all")) button.hidden = false;
  count();
};

table.addEventListener("change", (event) => {
  if (event.target.name !== "run") return;
  note(ticked, "ticked", event.target.value, event.target.checked);
  count();
});
table.addEventListener("toggle", (event) => note(opened, "opened", event.target.id, event.target.open), true);
table.addEventListener("click", (event) => {
  if (!event.target.matches("button.all")) return;
  const own = [...event.target.closest("details").querySelectorAll("input[name=run]")];
  const all = own.every((box) => box.checked);
  for (const box of own) {
    box.checked = !all;
    note(ticked, "ticked", box.value, box.checked);
  }
  count();
});
let focused = "";
table.addEventListener("htmx:beforeSwap", () => (focused = document.activeElement.id));
table.addEventListener("htmx:afterSwap", () => {
  restore();
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true }); // it was in a closed fold until now
});
window.addEventListener("pageshow", restore); // the browser's own memory of a page knows nothing of swaps
