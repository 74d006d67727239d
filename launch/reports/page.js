// A click on a column's name sorts its table by it: numbers from the greatest, words from a.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const numeric = head.classList.contains("n"), column = head.cellIndex;
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numeric;
    const value = (row) => {
      const text = row.cells[column].textContent.trim().replace("#", "");
      return numeric ? parseFloat(text) : text;
    };
    const empty = (v) => (numeric ? Number.isNaN(v) : v === "");
    const order = (a, b) => {
      const x = value(a), y = value(b);
      if (empty(x) || empty(y)) return empty(x) - empty(y);
      return (down ? -1 : 1) * (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true }));
    };
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort(order));
  });
}
// A link to what is folded away unfolds it; on a phone the contents begin folded.
const contents = document.querySelector("nav details");
if (matchMedia("(max-width: 60rem)").matches) contents.open = false;
