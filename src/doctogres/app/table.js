// Sorts the table by the pressed heading, and tells the page which slide was pressed.
const sorting = { column: 0, down: false };

function valueOf(row) {
  const cell = row.cells[sorting.column];
  return cell.dataset.order ?? cell.textContent.trim();
}

function sort(table) {
  const sign = sorting.down ? -1 : 1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => sign * valueOf(one).localeCompare(valueOf(other), undefined, { numeric: true }));
  table.tBodies[0].append(...rows);
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    if (column === sorting.column) cell.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

function fill(place, setStateValue) {
  const table = place.querySelector("table");
  table.querySelectorAll("button.sort").forEach((button, column) => {
    button.onclick = () => {
      sorting.down = sorting.column === column && !sorting.down;
      sorting.column = column;
      sort(table);
    };
  });
  table.querySelectorAll("tbody tr").forEach((row) => {
    row.querySelector("button").onclick = () => setStateValue("chosen", row.dataset.key);
  });
  sort(table);
}

export default function ({ data, parentElement, setStateValue }) {
  const place = parentElement.querySelector(".table-of-slides");
  if (place.filledWith !== data.html) {  // else the pressed button would lose the keyboard's focus
    place.innerHTML = place.filledWith = data.html;
    fill(place, setStateValue);
  }
  place.querySelectorAll("tbody tr").forEach((row) => {
    row.querySelector("button").setAttribute("aria-pressed", row.dataset.key === data.chosen);
  });
}
