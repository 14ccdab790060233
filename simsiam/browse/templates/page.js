"use strict";
// The address after "#" says what is shown: all/PAGE/TEXT, like/ROW, picture, duplicates/THRESHOLD, map/METHOD.

const COUNT = 120, STEP = 48, GROUPS = 20;
const get = (id) => document.getElementById(id);
const views = ["all", "like", "duplicates", "map"];
let visit = 0; // goes up with every change of view; answers to an older one are dropped
let sent = null; // the picture that was given to search with: {blob, url, name}

async function ask(path, options) {
  const answer = await fetch(path, options);
  const kind = answer.headers.get("Content-Type") || "";
  const value = kind.startsWith("application/json") ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}

function say(text, bad = false) {
  get("status").hidden = !text;
  get("status").textContent = text;
  get("status").classList.toggle("bad", bad);
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function tile(image) {
  const caption = element("figcaption");
  if (image.similarity !== undefined) caption.append(element("b", {}, image.similarity.toFixed(3)));
  if (image.copy) caption.append(" ", element("mark", {}, "same file"));
  const name = element("bdi", {}, image.path);
  caption.append(element("span", { className: "name", title: image.path }, name));
  if (image.label) caption.append(element("span", {}, image.label));
  const picture = element("img", { src: `/thumb/${image.row}`, alt: image.path, loading: "lazy", width: 132, height: 132 });
  return element("figure", { className: "tile" }, element("a", { href: `#like/${image.row}` }, picture), caption);
}

const grid = (view, images) => get(view).querySelector(".grid").replaceChildren(...images.map(tile));
const number = (value) => value.toLocaleString("en");
const counted = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;

async function showAll(now, page, text) {
  const field = get("text");
  if (document.activeElement !== field) field.value = text;
  const found = await ask(`/api/images?${new URLSearchParams({ start: (page - 1) * COUNT, count: COUNT, text })}`);
  if (now !== visit) return;
  grid("all", found.images);
  const pages = Math.max(1, Math.ceil(found.total / COUNT));
  get("count").textContent = text ? `${number(found.total)} of ${counted(Number(document.body.dataset.images), "image", "images")}` : "";
  get("pages").textContent = number(pages);
  get("at").value = page;
  get("earlier").disabled = page <= 1;
  get("later").disabled = page >= pages;
  document.querySelector("#all .pager").hidden = pages === 1;
  if (found.total === 0) say("No image has that in its name.");
}

async function showLike(now, row, k) {
  const found = await ask(`/api/like/${row}?k=${k}`);
  if (now !== visit) return;
  showFound(found, `/thumb/${row}`, `/image/${row}`, found.query.path, k, () => showLike(now, row, k + STEP));
}

async function showPicture(now, k) {
  say("Looking …");
  const found = await ask(`/api/search?k=${k}`, { method: "POST", body: sent.blob });
  if (now !== visit) return;
  say("");
  showFound(found, sent.url, sent.url, sent.name, k, () => showPicture(now, k + STEP));
}

function showFound(found, small, large, name, k, more) {
  get("query").src = small;
  get("query").alt = name;
  get("large").href = large;
  get("path").textContent = name;
  grid("like", found.images);
  get("more").hidden = !found.more || k >= 480;
  get("more").onclick = () => more().catch(failed);
}

async function untilDone(now, path, bar) {
  for (let wait = 300; ; wait = Math.min(2000, wait * 1.4)) {
    const value = await ask(path);
    if (now !== visit) return null;
    if (value.state === "failed") throw new Error(value.error);
    bar.hidden = value.state === "done";
    if (value.state === "done") return value;
    if (value.share > 0) bar.value = value.share;
    await new Promise((after) => setTimeout(after, wait));
  }
}

async function showDuplicates(now, threshold, start) {
  const list = document.querySelector("#duplicates .groups");
  if (start === 0) list.replaceChildren();
  get("threshold").value = threshold;
  get("groups").textContent = "";
  get("more-groups").hidden = true;
  const bar = document.querySelector("#duplicates progress");
  bar.removeAttribute("value");
  const found = await untilDone(now, `/api/duplicates?threshold=${threshold}&start=${start}&count=${GROUPS}`, bar);
  if (found === null) return;
  get("groups").textContent = `${counted(found.total, "group", "groups")} of ${counted(found.members, "image", "images")}; ${counted(found.copies, "exact copy", "exact copies")}`;
  for (const group of found.groups) {
    const pictures = element("div", { className: "grid" }, ...group.images.map(tile));
    const hidden = group.size - group.images.length;
    const more = hidden ? [element("p", { className: "fine" }, `and ${number(hidden)} more`)] : [];
    list.append(element("div", { className: "group" }, element("h2", {}, `${number(group.size)} images`), pictures, ...more));
  }
  get("more-groups").hidden = start + GROUPS >= found.total;
  get("more-groups").onclick = () => showDuplicates(now, threshold, start + GROUPS).catch(failed);
}

let points = [];
const canvas = document.querySelector("canvas");

async function showMap(now, method) {
  document.querySelector(`#map [value=${method}]`).checked = true;
  points = [];
  draw();
  get("points").textContent = "";
  const bar = document.querySelector("#map progress");
  bar.removeAttribute("value");
  const found = await untilDone(now, `/api/map/${method}`, bar);
  if (found === null) return;
  points = found.points;
  get("points").textContent = points.length < found.total ? `${number(points.length)} of ${number(found.total)} images, drawn at random` : "";
  draw();
}

function place(point) { // in CSS pixels, with a margin
  const side = canvas.clientWidth, edge = 28;
  return [edge + point[1] * (side - 2 * edge), edge + (1 - point[2]) * (side - 2 * edge)];
}

function draw() {
  const side = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  if (!side) return;
  canvas.width = canvas.height = Math.round(side * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = getComputedStyle(document.body).getPropertyValue("--accent");
  pen.globalAlpha = 0.6;
  for (const point of points) {
    const [x, y] = place(point);
    pen.beginPath();
    pen.arc(x, y, 2.5, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
  const size = side < 500 ? 30 : 44, taken = new Set(), now = visit, drawn = points; // a picture where no other stands
  for (const point of drawn) {
    const [x, y] = place(point), cell = `${Math.floor(x / size)},${Math.floor(y / size)}`;
    if (taken.has(cell) || taken.size > 240) continue;
    taken.add(cell);
    const picture = new Image();
    picture.onload = () => {
      if (now !== visit || drawn !== points || canvas.clientWidth !== side) return;
      const scale = (size * 0.9) / Math.max(picture.width, picture.height);
      const [cx, cy] = [(Math.floor(x / size) + 0.5) * size, (Math.floor(y / size) + 0.5) * size];
      pen.drawImage(picture, cx - picture.width * scale / 2, cy - picture.height * scale / 2, picture.width * scale, picture.height * scale);
    };
    picture.src = `/thumb/${point[0]}`;
  }
}

function nearest(event) {
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let best = null, least = 24 ** 2;
  for (const point of points) {
    const [px, py] = place(point), far = (px - x) ** 2 + (py - y) ** 2;
    if (far < least) [best, least] = [point, far];
  }
  return best;
}

canvas.addEventListener("pointermove", (event) => {
  const point = nearest(event), tip = get("tip");
  tip.hidden = point === null || event.pointerType === "touch";
  if (tip.hidden) return;
  const [x, y] = place(point), right = x > canvas.clientWidth / 2;
  tip.style.left = right ? "" : `${x + 10}px`;
  tip.style.right = right ? `${canvas.clientWidth - x + 10}px` : "";
  tip.style.top = `${Math.min(y, canvas.clientWidth - 150)}px`;
  tip.querySelector("img").src = `/thumb/${point[0]}`;
});
canvas.addEventListener("pointerleave", () => { get("tip").hidden = true; });
canvas.addEventListener("click", (event) => {
  const point = nearest(event);
  if (point) location.hash = `like/${point[0]}`;
});
window.addEventListener("resize", draw);

function failed(error) { say(error.message, true); }

function show() {
  const [view, first = "", ...rest] = location.hash.slice(1).split("/");
  const now = ++visit;
  say("");
  get("tip").hidden = true;
  const shown = view === "picture" ? "like" : views.includes(view) ? view : "all";
  for (const name of views) get(name).hidden = name !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  if (view === "picture" && !sent) return void (location.hash = "all");
  const work = {
    all: async () => showAll(now, Math.max(1, Number(first) || 1), decodeURIComponent(rest.join("/"))),
    like: () => (view === "picture" ? showPicture(now, STEP) : showLike(now, first, STEP)),
    duplicates: () => showDuplicates(now, Number(first) || 0.95, 0),
    map: () => showMap(now, first === "tsne" ? "tsne" : "pca"),
  };
  work[shown]().catch((error) => now === visit && failed(error));
}

function search(file) {
  if (!file) return;
  if (file.size > 64 * 2 ** 20) return void say("A picture may have 64 MB.", true);
  if (sent) URL.revokeObjectURL(sent.url);
  sent = { blob: file, url: URL.createObjectURL(file), name: file.name };
  if (location.hash === "#picture") show();
  else location.hash = "picture";
}

const goTo = (page) => { location.hash = `all/${page}/${encodeURIComponent(get("text").value)}`; };
get("earlier").onclick = () => goTo(Number(get("at").value) - 1);
get("later").onclick = () => goTo(Number(get("at").value) + 1);
get("at").onchange = () => goTo(Math.min(Number(get("pages").textContent.replace(/\D/g, "")), Math.max(1, Number(get("at").value) || 1)));
let typed = 0;
get("text").oninput = () => { clearTimeout(typed); typed = setTimeout(() => goTo(1), 250); };
get("threshold").onchange = () => { location.hash = `duplicates/${get("threshold").value}`; };
for (const radio of document.querySelectorAll("[name=method]")) radio.onchange = () => { location.hash = `map/${radio.value}`; };
get("picture").onchange = (event) => { search(event.target.files[0]); event.target.value = ""; };

let over = 0;
const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
addEventListener("dragenter", (event) => { if (hasFiles(event)) { over++; get("drop").hidden = false; } });
addEventListener("dragleave", (event) => { if (hasFiles(event)) get("drop").hidden = --over > 0 ? false : true; });
addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  over = 0;
  get("drop").hidden = true;
  search(event.dataTransfer.files[0]);
});
addEventListener("hashchange", show);
show();
