"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [rows, columns] = data.shape;
  const place = data.place;
  const objects = data.objects;
  const byId = (id) => document.getElementById(id);
  const view = byId("view");
  const scene = byId("scene");

  // ---- where on Earth ----
  const onMap = (column, row) => {
    const [a, b, c, d, e, f] = place.affine;
    return [a * column + b * row + c, d * column + e * row + f];
  };

  // Longitude and latitude between the known places: directions in space are interpolated, not angles.
  const lonLat = (column, row) => {
    if (!place.directions) return null;
    const n = place.nodes;
    const u = Math.min(Math.max(column / columns, 0), 1) * (n - 1);
    const v = Math.min(Math.max(row / rows, 0), 1) * (n - 1);
    const i = Math.min(Math.floor(v), n - 2);
    const j = Math.min(Math.floor(u), n - 2);
    const [s, t] = [u - j, v - i];
    const at = (i, j, k) => place.directions[3 * (i * n + j) + k];
    const [x, y, z] = [0, 1, 2].map((k) =>
      (1 - t) * ((1 - s) * at(i, j, k) + s * at(i, j + 1, k)) + t * ((1 - s) * at(i + 1, j, k) + s * at(i + 1, j + 1, k)));
    const degree = 180 / Math.PI;
    return [Math.atan2(y, x) * degree, Math.atan2(z, Math.hypot(x, y)) * degree];
  };

  // ---- moving and zooming: screen = k * pixel + (x, y) ----
  let k = 1, x = 0, y = 0;
  const size = () => [view.clientWidth || 1, view.clientHeight || 1];
  const wholeTile = () => {
    const [width, height] = size();
    return 0.97 * Math.min(width / columns, height / rows);
  };

  const show = () => {
    scene.setAttribute("transform", `translate(${x} ${y}) scale(${k})`);
    view.classList.toggle("smooth", k < 1.5);
    drawScale();
  };
  const centre = (column, row) => {
    const [width, height] = size();
    x = width / 2 - k * column;
    y = height / 2 - k * row;
    show();
  };
  const fit = () => {
    k = wholeTile();
    centre(columns / 2, rows / 2);
  };
  const zoomAt = (px, py, factor) => {
    const fitting = wholeTile();
    const wanted = Math.min(Math.max(k * factor, fitting / 4), Math.max(60, fitting * 2));
    x = px - (px - x) * (wanted / k);
    y = py - (py - y) * (wanted / k);
    k = wanted;
    show();
  };
  const zoomMiddle = (factor) => {
    const [width, height] = size();
    zoomAt(width / 2, height / 2, factor);
  };
  const moveBy = (dx, dy) => {
    x += dx;
    y += dy;
    show();
  };

  const drawScale = () => {
    const scale = byId("scale");
    scale.hidden = !place.metres;
    if (!place.metres) return;
    const metresPerPixel = place.metres / k;
    const longest = 140 * metresPerPixel;
    const power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].map((step) => step * power).find((step) => step <= longest) || power;
    scale.querySelector("i").style.width = `${length / metresPerPixel}px`;
    scale.querySelector("span").textContent = length >= 1000 ? `${length / 1000} km` : length >= 1 ? `${length} m` : `${+(length * 100).toPrecision(2)} cm`;
  };

  const pointers = new Map();
  let travelled = 0;
  const local = (event) => {
    const frame = view.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };
  view.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    if (pointers.size === 0) travelled = 0;
    pointers.set(event.pointerId, local(event));
    view.setPointerCapture(event.pointerId);
    view.classList.add("moving");
  });
  view.addEventListener("pointermove", (event) => {
    const now = local(event);
    const before = pointers.get(event.pointerId);
    drawCursor(now);
    if (!before) {
      hover(indexAt(event));
      return;
    }
    if (pointers.size === 1) {
      travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (travelled > 4) moveBy(now[0] - before[0], now[1] - before[1]);
    } else {
      travelled = Infinity;
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (point) => Math.max(Math.hypot(point[0] - other[0], point[1] - other[1]), 1);
      zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, apart(now) / apart(before));
      moveBy((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    }
    pointers.set(event.pointerId, now);
  });
  const release = (event) => {
    const pressed = pointers.delete(event.pointerId);
    if (pointers.size === 0) view.classList.remove("moving");
    if (pressed && event.type === "pointerup" && pointers.size === 0 && travelled <= 4) select(indexAt(event), false);
  };
  view.addEventListener("pointerup", release);
  view.addEventListener("pointercancel", release);
  view.addEventListener("pointerleave", () => {
    hover(-1);
    byId("cursor").textContent = "";
  });
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoomAt(...local(event), Math.exp(-Math.max(Math.min(event.deltaY * lines, 400), -400) * 0.002));
  }, { passive: false });
  view.addEventListener("dblclick", (event) => zoomAt(...local(event), event.shiftKey ? 0.5 : 2));
  view.addEventListener("keydown", (event) => {
    const [width, height] = size();
    const actions = {
      ArrowLeft: () => moveBy(width / 8, 0),
      ArrowRight: () => moveBy(-width / 8, 0),
      ArrowUp: () => moveBy(0, height / 8),
      ArrowDown: () => moveBy(0, -height / 8),
      "+": () => zoomMiddle(1.5),
      "=": () => zoomMiddle(1.5),
      "-": () => zoomMiddle(1 / 1.5),
      0: fit,
      Escape: () => select(-1, false),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !actions[event.key]) return;
    actions[event.key]();
    event.preventDefault();
  });
  byId("zoom-in").addEventListener("click", () => zoomMiddle(1.5));
  byId("zoom-out").addEventListener("click", () => zoomMiddle(1 / 1.5));
  byId("fit").addEventListener("click", fit);

  const drawCursor = ([px, py]) => {
    const [column, row] = [(px - x) / k, (py - y) / k];
    const inside = column >= 0 && column <= columns && row >= 0 && row <= rows;
    const lines = [];
    if (inside) {
      const [east, north] = onMap(column, row);
      lines.push(`${place.crs}  ${east.toFixed(place.decimals)}, ${north.toFixed(place.decimals)}`);
      const geographic = lonLat(column, row);
      if (geographic) {
        const [longitude, latitude] = geographic;
        lines.push(`${Math.abs(latitude).toFixed(5)}° ${latitude < 0 ? "S" : "N"}, ${Math.abs(longitude).toFixed(5)}° ${longitude < 0 ? "W" : "E"}`);
      }
    }
    byId("cursor").textContent = lines.join("\n");
  };

  // ---- layers ----
  for (const box of document.querySelectorAll("[data-layer]")) {
    box.addEventListener("change", () => {
      byId(`layer-${box.dataset.layer}`).style.display = box.checked ? "" : "none";
    });
  }
  for (const slider of document.querySelectorAll("[data-opacity]")) {
    slider.addEventListener("input", () => {
      byId(`layer-${slider.dataset.opacity}`).setAttribute("opacity", slider.value / 100);
    });
  }
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // ---- objects ----
  const colour = (probability) => {
    const ramp = data.ramp;
    const at = probability === null ? ramp[0][0] : Math.min(Math.max(probability, ramp[0][0]), ramp[ramp.length - 1][0]);
    const upper = Math.max(ramp.findIndex((stop) => at <= stop[0]), 1);
    const [low, high] = [ramp[upper - 1], ramp[upper]];
    const share = (at - low[0]) / (high[0] - low[0]);
    return `rgb(${[1, 2, 3].map((i) => Math.round(low[i] + share * (high[i] - low[i]))).join(",")})`;
  };
  const written = (value, name) => {
    if (value === null) return "–";
    if (typeof value !== "number") return String(value);
    if (name === "Region_ID") return String(value);
    return value.toLocaleString("en", Math.abs(value) >= 100 || Number.isInteger(value) ? { maximumFractionDigits: 0 } : { maximumFractionDigits: 3 });
  };
  let shapes = [];
  let tableRows = [];
  let hovered = -1;
  let selected = -1;
  const indexAt = (event) => {
    const target = document.elementFromPoint(event.clientX, event.clientY);
    return target && target.classList.contains("object") ? Number(target.dataset.index) : -1;
  };
  const describe = (index) => {
    const list = byId("object");
    list.replaceChildren();
    if (index < 0) return;
    const pairs = objects.columns.map((name, column) => [name, objects.rows[index][column]]);
    for (const [name, value] of [...pairs, ...Object.entries(objects.same)]) {
      const term = document.createElement("dt");
      const meaning = document.createElement("dd");
      term.textContent = name;
      meaning.textContent = written(value, name);
      list.append(term, meaning);
    }
  };
  const hover = (index) => {
    if (index === hovered) return;
    if (hovered >= 0) shapes[hovered].classList.remove("hovered");
    if (index >= 0) shapes[index].classList.add("hovered");
    hovered = index;
    describe(index >= 0 ? index : selected);
  };
  const select = (index, zoom) => {
    if (selected >= 0) {
      shapes[selected].classList.remove("selected");
      tableRows[selected].classList.remove("selected");
    }
    selected = index;
    describe(index);
    if (index < 0) return;
    shapes[index].classList.add("selected");
    shapes[index].parentNode.append(shapes[index]); // on top
    tableRows[index].classList.add("selected");
    if (zoom) zoomTo(index);
    else tableRows[index].scrollIntoView({ block: "nearest" });
  };
  const zoomTo = (index) => {
    const box = shapes[index].getBBox();
    const [width, height] = size();
    k = Math.min(width / Math.max(box.width * 3, 20), height / Math.max(box.height * 3, 20), 60);
    centre(box.x + box.width / 2, box.y + box.height / 2);
  };

  const drawObjects = () => {
    const mean = objects.columns.indexOf("mean");
    const group = byId("layer-objects");
    const draw = (path, name) => {
      const shape = document.createElementNS(view.namespaceURI, "path");
      shape.setAttribute("d", path);
      shape.setAttribute("class", name);
      return shape;
    };
    // One each: of a single long path, the browser draws all even where little is in sight.
    byId("halos").append(...objects.paths.map((path) => draw(path, "halo")));
    shapes = objects.paths.map((path, index) => {
      const shape = draw(path, "object");
      shape.dataset.index = index;
      shape.style.stroke = colour(objects.rows[index][mean]);
      return shape;
    });
    group.append(...shapes);
    byId("objects-control").hidden = false;
    const stops = data.ramp;
    byId("objects-ramp").style.background = `linear-gradient(90deg, ${stops.map((stop) => colour(stop[0])).join(", ")})`;
    for (const stop of stops) {
      const label = document.createElement("b");
      label.textContent = `${Math.round(stop[0] * 100)} %`;
      byId("objects-ramp").parentNode.append(label);
    }
  };

  const drawTable = () => {
    byId("list").hidden = false;
    const body = document.querySelector("#table tbody");
    const heads = objects.columns.map((name, column) => {
      const head = document.createElement("th");
      head.scope = "col";
      if (objects.rows.some((row) => typeof row[column] === "string")) head.className = "text";
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => sortBy(column));
      head.append(button);
      return head;
    });
    const line = document.createElement("tr");
    line.append(...heads);
    document.querySelector("#table thead").append(line);
    tableRows = objects.rows.map((values, index) => {
      const row = document.createElement("tr");
      values.forEach((value, column) => {
        const cell = row.insertCell();
        cell.className = heads[column].className;
        if (column > 0) {
          cell.textContent = written(value, objects.columns[column]);
          return;
        }
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = written(value, objects.columns[column]);
        button.setAttribute("aria-label", `Zoom to object ${button.textContent}`);
        cell.append(button);
      });
      row.addEventListener("click", () => select(index, true));
      return row;
    });
    body.append(...tableRows);
    const sortBy = (column) => {
      const rising = heads[column].getAttribute("aria-sort") === "descending";
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[column].setAttribute("aria-sort", rising ? "ascending" : "descending");
      const order = objects.rows.map((_, index) => index);
      order.sort((first, second) => {
        const [a, b] = [objects.rows[first][column], objects.rows[second][column]];
        if (a === null || b === null) return (a === null) - (b === null) || first - second; // missing ones last
        return (a < b ? -1 : a > b ? 1 : 0) * (rising ? 1 : -1) || first - second;
      });
      body.append(...order.map((index) => tableRows[index]));
    };
  };

  if (objects && objects.paths.length) {
    drawObjects();
    drawTable();
  }
  const north = byId("north");
  if (place.north === null) north.remove();
  else {
    north.querySelector("g").setAttribute("transform", `rotate(${place.north})`);
  }
  fit();
  let fitted = size();
  new ResizeObserver(() => {
    // The middle stays in the middle.
    const [width, height] = size();
    moveBy((width - fitted[0]) / 2, (height - fitted[1]) / 2);
    fitted = [width, height];
  }).observe(view);
  window.darts = { lonLat, onMap, state: () => ({ k, x, y, selected, hovered }) };
})();
