"use strict";
for (const svg of document.querySelectorAll("svg[data-lines]")) {
  const lines = JSON.parse(svg.dataset.lines);
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  svg.parentNode.append(tip);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const near = (line) => line.p.reduce((best, point, at) => (Math.abs(point[0] - x) < Math.abs(line.p[best][0] - x) ? at : best), 0);
    const told = lines.filter((line) => line.p.length).map((line) => [line, near(line)]);
    if (!told.length) return;
    tip.textContent = told.map(([line, at]) => `${line.name}  ${line.t[at]}`).join("\n");
    tip.hidden = false;
    const [first, at] = told[0];
    cursor.setAttribute("d", `M${first.p[at][0]} 12V222`);
    const parent = svg.parentNode.getBoundingClientRect();
    const left = event.clientX - parent.left + 14;
    tip.style.left = `${Math.min(left, parent.width - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY - parent.top + 14}px`;
  });
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    cursor.removeAttribute("d");
  });
}
