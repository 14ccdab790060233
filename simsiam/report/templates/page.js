"use strict";
(() => {
  const tip = document.getElementById("tip");

  function showTip(event, nodes) {
    tip.replaceChildren(...nodes);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    const above = event.clientY - box.height - 12;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (above > 8 ? above : event.clientY + 16) + "px";
  }
  const line = (text) => Object.assign(document.createElement("div"), { textContent: text });
  const figure = (value) => String(value).replace("-", "\u2212");

  function nearest(points, x) {
    let best = null;
    for (const point of points) if (!best || Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
    return best;
  }

  for (const chart of document.querySelectorAll("svg.chart")) {
    const series = JSON.parse(chart.dataset.series).filter((one) => one.points.length);
    const [low, high, start, end] = chart.dataset.x.split(",").map(Number);
    const cursor = chart.querySelector(".cursor");
    chart.addEventListener("pointermove", (event) => {
      if (!series.length) return;
      const box = chart.getBoundingClientRect();
      const pixel = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      const x = low + (pixel - start) / (end - start) * (high - low);
      const found = series.map((one) => [one.name, nearest(one.points, x)]);
      const at = start + (found[0][1][0] - low) / (high - low) * (end - start);
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      cursor.setAttribute("visibility", "visible");
      showTip(event, [line(chart.dataset.across + " " + figure(found[0][1][0])), ...found.map(([name, point]) => line(name + " " + figure(point[1])))]);
    });
    chart.addEventListener("pointerleave", () => {
      tip.hidden = true;
      cursor.setAttribute("visibility", "hidden");
    });
  }

  const map = document.querySelector("svg.map");
  if (map) {
    const showPoint = (event) => {
      const point = event.target.closest(".point");
      if (!point) {
        tip.hidden = true;
        return;
      }
      const picture = point.querySelector("image");
      const nodes = picture ? [Object.assign(new Image(), { src: picture.getAttribute("href"), alt: "" })] : [];
      showTip(event, [...nodes, line(point.dataset.title)]);
    };
    map.addEventListener("pointermove", showPoint);
    map.addEventListener("pointerdown", showPoint);
    map.addEventListener("pointerleave", () => { tip.hidden = true; });
    for (const button of document.querySelectorAll(".legend button")) {
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        for (const other of document.querySelectorAll(".legend button")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(on));
        const name = (button.dataset.by === "label" ? "l" : "k") + button.dataset.colour;
        for (const point of map.querySelectorAll(".point")) {
          point.classList.toggle("faded", on && !point.classList.contains(name));
        }
      });
    }
    for (const choice of document.querySelectorAll("input[name=map-colour]")) {
      choice.addEventListener("change", () => {
        for (const button of document.querySelectorAll(".legend button")) button.setAttribute("aria-pressed", "false");
        for (const point of map.querySelectorAll(".point")) point.classList.remove("faded");
      });
    }
  }

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  window.addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
})();
