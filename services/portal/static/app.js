// What HTMX does not do: figures that follow, copying a link, the dialogue "why", and orders that are moved.
"use strict";

/** Figures that follow: the server sends all of them as HTML whenever they change. */
for (const region of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(region.dataset.live);
  source.onmessage = (event) => {
    const focused = region.contains(document.activeElement) && document.activeElement.id;
    region.innerHTML = event.data;
    htmx.process(region);
    if (focused) document.getElementById(focused)?.focus();
    const status = document.querySelector("[data-live-status]");
    if (status) status.textContent = region.dataset.updated;
  };
  addEventListener("pagehide", () => source.close());
}

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const text = document.querySelector(copy.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // an insecure address has no clipboard: it can be copied by hand
      getSelection().selectAllChildren(document.querySelector(copy.dataset.copy));
      return;
    }
    copy.textContent = copy.dataset.copied;
  }
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "why-content") document.getElementById("why").showModal();
});

/** An order that is moved by dragging or by buttons; the picture beside it is asked for anew at once. */
for (const form of document.querySelectorAll("[data-order]")) {
  const list = form.querySelector("ol");
  const status = form.querySelector("[data-moved]");
  const moved = (item) => {
    const name = item.querySelector(".name").textContent.trim();
    const place = [...list.children].indexOf(item) + 1;
    status.textContent = status.dataset.moved.replace("%name%", name).replace("%place%", place);
    htmx.trigger(form, "moved");
  };
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-move]");
    if (!button) return;
    const item = button.closest("li");
    const other = button.dataset.move === "-1" ? item.previousElementSibling : item.nextElementSibling;
    if (!other) return;
    button.dataset.move === "-1" ? other.before(item) : other.after(item);
    button.focus();
    moved(item);
  });
  let held = null;
  list.addEventListener("dragstart", (event) => {
    held = event.target.closest("li");
    held.classList.add("held");
    event.dataTransfer.effectAllowed = "move";
  });
  list.addEventListener("dragover", (event) => {
    const over = event.target.closest("li");
    if (!held || !over || over === held) return;
    event.preventDefault();
    const { top, height } = over.getBoundingClientRect();
    event.clientY < top + height / 2 ? over.before(held) : over.after(held);
  });
  list.addEventListener("drop", (event) => event.preventDefault());
  list.addEventListener("dragend", () => {
    held.classList.remove("held");
    moved(held);
    held = null;
  });
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-print]")) print();
});
