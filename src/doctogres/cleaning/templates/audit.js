"use strict";
const cards = [...document.querySelectorAll("[data-slide]")];
const panel = document.getElementById("decisions"), count = document.getElementById("count");
const quoted = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);

function line(card) {
  const decision = card.querySelector("input:checked").value;
  const reason = card.querySelector("input[type=text]");
  reason.hidden = !decision;
  return decision && [card.dataset.slide, decision, reason.value.trim()].map(quoted).join(",");
}

function update() {
  const lines = cards.map(line).filter(Boolean);
  const csv = ["slide_id,decision,reason", ...lines, ""].join("\n");
  panel.querySelector("textarea").value = csv;
  panel.querySelector("a").href = "data:text/csv;charset=utf-8," + encodeURIComponent(csv);
  panel.querySelector("[role=status]").textContent = "";
  count.querySelector("output").textContent = lines.length + (lines.length === 1 ? " decision" : " decisions");
  count.hidden = lines.length === 0;
}

function copy() {
  panel.querySelector("textarea").select();
  const done = document.execCommand("copy"); // MLflow's frame blocks the modern clipboard API
  panel.querySelector("[role=status]").textContent = done ? "Copied." : "Press Ctrl+C to copy the selected text.";
}

if (panel) {
  for (const card of cards) {
    const given = card.querySelector("input:checked") || card.querySelector("input[type=radio]");
    given.checked = true;
    card.querySelector("fieldset").hidden = false;
    card.addEventListener("input", update);
  }
  panel.hidden = false;
  panel.querySelector("button").addEventListener("click", copy);
  count.querySelector("button").addEventListener("click", () => panel.scrollIntoView());
  update();
}
