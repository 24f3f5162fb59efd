"use strict";
// Tables are sorted by a click on a heading; the number of a cell is in its data-n.
for (const head of document.querySelectorAll("th button")) {
  head.addEventListener("click", () => {
    const th = head.closest("th"), body = th.closest("table").tBodies[0];
    const down = th.getAttribute("aria-sort") !== "descending";
    for (const other of th.parentElement.cells) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => {
      const cell = row.cells[th.cellIndex];
      return cell.dataset.n === undefined ? cell.textContent : Number(cell.dataset.n);
    };
    const order = (a, b) => (typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b)) : a - b);
    const rows = Array.from(body.rows);
    rows.sort((a, b) => (down ? order(value(b), value(a)) : order(value(a), value(b))));
    body.append(...rows);
  });
}
// The dot that is nearest to the pointer says what it is.
const tip = document.getElementById("tip");
for (const plot of document.querySelectorAll("[data-points]")) {
  const points = JSON.parse(document.getElementById(plot.dataset.points).textContent);
  const svg = plot.querySelector("svg"), ring = svg.querySelector(".ring");
  const box = svg.viewBox.baseVal;
  const show = (event) => {
    const at = svg.getBoundingClientRect(), scale = box.width / at.width;
    const x = (event.clientX - at.left) * scale, y = (event.clientY - at.top) * scale;
    let best = null, least = (24 * scale) ** 2;
    for (const point of points) {
      const far = (point[0] - x) ** 2 + (point[1] - y) ** 2;
      if (far < least) { least = far; best = point; }
    }
    tip.style.display = best ? "block" : "none";
    ring.setAttribute("visibility", best ? "visible" : "hidden");
    if (!best) return;
    ring.setAttribute("cx", best[0]);
    ring.setAttribute("cy", best[1]);
    tip.replaceChildren();
    if (best[3]) {
      const image = new Image();
      image.src = "data:image/png;base64," + best[3];
      image.alt = "";
      tip.append(image);
    }
    tip.append(best[2]);
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8);
    tip.style.left = Math.max(left, 4) + "px";
    tip.style.top = Math.max(top, 4) + "px";
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", () => {
    tip.style.display = "none";
    ring.setAttribute("visibility", "hidden");
  });
}
