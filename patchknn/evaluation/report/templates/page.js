"use strict";
(() => {
  const list = document.getElementById("cards");
  if (!list) return;
  const byId = (id) => document.getElementById(id);
  const controls = document.querySelector(".controls");
  const cards = Array.from(list.children);
  const fields = ["sort", "true", "predicted", "only", "low", "high", "text", "size"]
    .map(byId).filter(Boolean);
  const searched = new Map();

  const value = (id) => (byId(id) ? byId(id).value : "");
  const shown = () => Array.from(list.children).filter((card) => !card.classList.contains("off"));

  function textOf(card) {
    if (!searched.has(card)) searched.set(card, card.textContent.toLowerCase());
    return searched.get(card);
  }

  function rank(card, by) {
    const data = card.dataset;
    if (by === "-c") return -Number(data.c);
    if (by === "w") return { n: 0, u: 1, y: 2 }[data.v];
    return Number(data[by]);
  }

  function sort() {
    const by = value("sort");
    const ranked = cards.map((card) => [rank(card, by), Number(card.dataset.c), card]);
    ranked.sort((a, b) => a[0] - b[0] || (by === "i" || by === "-c" ? 0 : a[1] - b[1])
      || Number(a[2].dataset.i) - Number(b[2].dataset.i));
    const ordered = document.createDocumentFragment();
    for (const entry of ranked) ordered.append(entry[2]);
    list.append(ordered);
  }

  function passes(card) {
    const data = card.dataset;
    const share = Math.max(0, Number(data.c)) * 100;
    const [flag, wanted] = value("only").split("=");
    return (!value("true") || data.t === value("true"))
      && (!value("predicted") || data.p === value("predicted"))
      && (!flag || data[flag] === wanted)
      && (value("low") === "" || share >= Number(value("low")) - 1e-6)
      && (value("high") === "" || share <= Number(value("high")) + 1e-6)
      && value("text").toLowerCase().split(/\s+/).every((word) => textOf(card).includes(word));
  }

  function filter() {
    let count = 0;
    for (const card of cards) {
      const keep = passes(card);
      card.classList.toggle("off", !keep);
      count += keep;
    }
    byId("count").value = `${count} of ${cards.length} shown`;
    byId("none").hidden = count > 0;
    aim(shown()[0]);
  }

  // One card alone can be reached by Tab; the arrow keys go on from there.
  function aim(card) {
    for (const other of list.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
    if (card) card.tabIndex = 0;
  }

  function go(target) {
    if (!target) return;
    target.tabIndex = -1;
    aim(target.closest(".card"));
    target.focus();
    target.scrollIntoView({ block: "nearest" });
  }

  function move(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const card = event.target.closest(".card");
    if (!card) return;
    const all = shown();
    const at = all.indexOf(card);
    const near = Array.from(card.querySelectorAll(".near > li"));
    const beside = near.indexOf(event.target.closest(".near > li"));
    const targets = {
      ArrowDown: () => all[at + 1],
      ArrowUp: () => (beside >= 0 ? card : all[at - 1]),
      Home: () => all[0],
      End: () => all[all.length - 1],
      ArrowRight: () => near[beside + 1],
      ArrowLeft: () => (beside > 0 ? near[beside - 1] : card),
    };
    if (!targets[event.key]) return;
    event.preventDefault();
    go(targets[event.key]());
  }

  function reset() {
    for (const field of fields) {
      if (field.tagName === "SELECT") field.selectedIndex = 0;
      else field.value = field.defaultValue;
    }
    apply();
  }

  function apply() {
    list.classList.toggle("m", value("size") === "m");
    list.classList.toggle("l", value("size") === "l");
    sort();
    filter();
  }

  for (const field of fields) {
    field.addEventListener(field.id === "sort" || field.id === "size" ? "change" : "input", apply);
  }
  byId("reset").addEventListener("click", reset);
  list.addEventListener("keydown", move);
  list.addEventListener("focusin", (event) => aim(event.target.closest(".card")));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    byId("text").focus();
  });
  for (const part of document.querySelectorAll(".controls, .help")) part.hidden = false;
  for (const item of list.querySelectorAll(".card, .near > li")) item.tabIndex = -1;
  reset();
})();
