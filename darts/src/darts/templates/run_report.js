"use strict";
(() => {
  const tiles = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const view = byId("view");
  if (!view) return;
  const under = byId("under");
  const paths = [...view.querySelectorAll(".tiles path")];
  const numbers = new Map(paths.map((path, number) => [path, number]));
  const [, , width, height] = view.getAttribute("viewBox").split(" ").map(Number);
  const MOST_ZOOM = 4000;
  const MOST_NAMES = 8;

  // ---- moving and zooming: the part of the picture that is shown ----
  let zoom = 1, x = 0, y = 0;
  const show = () => {
    x = Math.min(Math.max(x, 0), width - width / zoom);
    y = Math.min(Math.max(y, 0), height - height / zoom);
    view.setAttribute("viewBox", `${x} ${y} ${width / zoom} ${height / zoom}`);
    view.classList.toggle("zoomed", zoom > 1);
    // Texts keep their size on the screen.
    view.style.setProperty("--u", width / zoom / (view.clientWidth || width));
  };
  const place = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(view.getScreenCTM().inverse());
    return [at.x, at.y];
  };
  const zoomAt = (px, py, factor) => {
    const wanted = Math.min(Math.max(zoom * factor, 1), MOST_ZOOM);
    x = px - (px - x) * (zoom / wanted);
    y = py - (py - y) * (zoom / wanted);
    zoom = wanted;
    show();
  };
  const middle = () => [x + width / zoom / 2, y + height / zoom / 2];
  const fit = () => { zoom = 1; show(); };
  byId("buttons").hidden = false;
  view.classList.add("ready");
  byId("zoom-in").addEventListener("click", () => zoomAt(...middle(), 1.6));
  byId("zoom-out").addEventListener("click", () => zoomAt(...middle(), 1 / 1.6));
  byId("fit").addEventListener("click", fit);
  view.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoomAt(...place(event), Math.exp(-event.deltaY / 300));
  }, { passive: false });
  view.addEventListener("keydown", (event) => {
    const step = 0.15 * width / zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves && zoom > 1) { x += moves[event.key][0]; y += moves[event.key][1]; show(); }
    else if (event.key === "+" || event.key === "=") zoomAt(...middle(), 1.6);
    else if (event.key === "-") zoomAt(...middle(), 1 / 1.6);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  });
  let held = null;
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || zoom === 1) return;
    held = place(event);
    view.setPointerCapture(event.pointerId);
    view.classList.add("moving");
  });
  const release = () => { held = null; view.classList.remove("moving"); };
  view.addEventListener("pointerup", release);
  view.addEventListener("pointercancel", release);

  // ---- what lies under the pointer ----
  let marked = [];
  const tell = (found) => {
    marked.forEach((path) => path.classList.remove("under"));
    marked = found;
    marked.forEach((path) => path.classList.add("under"));
    under.replaceChildren(...found.slice(0, MOST_NAMES).map((path) => {
      const [id, state] = tiles[numbers.get(path)];
      const line = document.createElement("div");
      const swatch = document.createElement("i");
      swatch.className = state;
      line.append(swatch, id);
      return line;
    }));
    if (found.length > MOST_NAMES) under.append(`and ${found.length - MOST_NAMES} more`);
  };
  let asked = 0;
  view.addEventListener("pointermove", (event) => {
    if (held) {
      const at = place(event);
      x -= at[0] - held[0];
      y -= at[1] - held[1];
      show();
      return;
    }
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(() => {
      tell(document.elementsFromPoint(event.clientX, event.clientY).filter((one) => numbers.has(one)));
    });
  });
  view.addEventListener("pointerleave", () => { cancelAnimationFrame(asked); tell([]); });
  addEventListener("resize", show);
  show();
  window.darts = { state: () => ({ zoom, x, y }), names: () => [...under.children].map((line) => line.textContent) };
})();
