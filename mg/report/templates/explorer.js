"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const find = id => document.getElementById(id);

// What is shown: a task, the place of an example in it, and a point of interest (its number) or a
// pixel [row, column].
const state = { task: 0, place: 0, point: 0, pixel: null };

// ---------------------------------------------------------------------------- data

// Arrays of bytes are kept packed (deflated, base64) until their task is first shown.
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function loaded(task) {
  task.arrays ??= (async () => {
    const networks = {};
    for (const [label, { output, maps }] of Object.entries(task.networks)) {
      networks[label] = {
        output: output && await unpacked(output),
        maps: maps && { ...maps, levels: await unpacked(maps.levels) },
      };
    }
    return { input: await unpacked(task.input), truth: await unpacked(task.truth), networks };
  })();
  return task.arrays;
}

// The images of one example: channels x height x width bytes.
const slice = (array, task, place, channels) => {
  const size = channels * task.height * task.width;
  return array.subarray(place * size, (place + 1) * size);
};

// The seven points of a network's answer and their maps; null if there are none for this example.
function attention(task, network, place) {
  const k = network?.maps ? network.maps.places.indexOf(place) : -1;
  if (k < 0) return null;
  const levels = slice(network.maps.levels, task, k, content.points.length);
  return { points: network.maps.points[k], levels };
}

// Intersection over union of an answer, all channels pooled; null where nothing is on.
function agreement(output, truth) {
  let both = 0, either = 0;
  for (let i = 0; i < truth.length; i++) {
    const [on, asked] = [output[i] >= 128, truth[i] >= 128];
    both += on && asked;
    either += on || asked;
  }
  return either ? both / either : null;
}

// ---------------------------------------------------------------------------- colours

const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const digits = content.digits.map(rgb);
const errors = Object.fromEntries(content.errors.map(([name, colour]) => [name, rgb(colour)]));

// hue in degrees, saturation and value in [0, 1].
function hsv(hue, saturation, value) {
  const part = n => {
    const k = (n + hue / 60) % 6;
    return 255 * value * (1 - saturation * Math.max(0, Math.min(k, 4 - k, 1)));
  };
  return [part(5), part(3), part(1)];
}

const grey = image => i => [image[i], image[i], image[i]];

// The classes of pixel i as the mean of their colours on black.
function classes(image, size) {
  return i => {
    const on = digits.filter((_, c) => image[c * size + i] >= 128);
    return [0, 1, 2].map(k => on.reduce((sum, colour) => sum + colour[k], 0) / (on.length || 1));
  };
}

function mistakes(output, truth, size, channels) {
  return i => {
    let missed = false, added = false, asked = false;
    for (let j = i; j < channels * size; j += size) {
      const [on, wanted] = [output[j] >= 128, truth[j] >= 128];
      missed ||= wanted && !on;
      added ||= on && !wanted;
      asked ||= wanted;
    }
    return missed && added ? errors["wrong digit"] : added ? errors.added
      : missed ? errors.missed : asked ? errors.right : [255, 255, 255];
  };
}

// Saturation: how much hiding the pixel changes the answer, by rank. Value: the inverted input.
const saliency = (levels, input, hue) => i =>
  hsv(hue, levels[i] / content.levels, 1 - input[i] / 255);

// ---------------------------------------------------------------------------- drawing

// Draw colour(i) of every pixel on a canvas enlarged `scale` times, and squares at the marks.
function draw(canvas, task, colour, marks = [], scale = Math.ceil(256 / task.width)) {
  const { width, height } = task;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...colour(i), 255], 4 * i);
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(image, 0, 0);
  Object.assign(canvas, { width: width * scale, height: height * scale });
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  for (const { at: [y, x], hue, chosen } of marks) {
    const side = scale * (chosen ? 2.2 : 1.4) * Math.max(1, width / 48);
    const corner = [(x + 0.5) * scale - side / 2, (y + 0.5) * scale - side / 2];
    if (hue !== undefined) {
      pen.fillStyle = `hsl(${hue} 100% 45%)`;
      pen.fillRect(...corner, side, side);
    }
    pen.lineWidth = chosen ? 5 : 2;
    pen.strokeStyle = "#000";
    pen.strokeRect(...corner, side, side);
    if (chosen) {
      pen.lineWidth = 2;
      pen.strokeStyle = "#fff";
      pen.strokeRect(...corner, side, side);
    }
  }
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function picture(task, label, colour, marks, points) {
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  draw(canvas, task, colour, marks);
  canvas.addEventListener("click", event => pick(task, canvas, event, points));
  return canvas;
}

// A click picks the nearest of the points that the image has, else the pixel.
function pick(task, canvas, event, points) {
  const box = canvas.getBoundingClientRect();
  const clamp = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
  const y = clamp((event.clientY - box.top) / box.height * task.height, task.height);
  const x = clamp((event.clientX - box.left) / box.width * task.width, task.width);
  if (points) {
    const distance = ([py, px]) => (py - y) ** 2 + (px - x) ** 2;
    const nearest = points.reduce((a, b, i) => distance(b) < distance(points[a]) ? i : a, 0);
    change({ point: nearest, pixel: null });
  } else {
    change({ pixel: [y, x] });
  }
}

function chips(entries) {
  return entries.map(([name, colour]) => {
    const chip = element("i");
    chip.style.background = colour;
    return element("span", {}, chip, name);
  });
}

// ---------------------------------------------------------------------------- the page

function show(task, arrays) {
  const { place, point, pixel } = state;
  const size = task.height * task.width, many = task.channels > 1;
  const input = slice(arrays.input, task, place, 1);
  const truth = slice(arrays.truth, task, place, task.channels);
  const painted = image => many ? classes(image, size) : grey(image);
  const crosshair = pixel ? [{ at: pixel, chosen: true }] : [];
  const mapped = Object.values(arrays.networks).some(n => attention(task, n, place));
  const asked = content.points[point];

  find("heading").textContent = `${task.name}, test image ${task.index[place]}`;
  find("explanation").textContent = many
    ? "Above: the digits that each network sees, as colours. Below: its errors."
    : mapped && !pixel
      ? `Above: the answers, each with its seven points. Below: the parts of the image that change the `
        + `answer at the point “${asked.name}” when noise hides them; the more saturated, the more.`
      : mapped ? "The answers. Pick one of the seven points to see where an answer comes from."
        : "The answers. There are no saliency maps of this image.";
  find("key").replaceChildren(...many ? [
    element("b", { textContent: "digits" }),
    ...chips(content.digits.map((colour, digit) => [digit, colour])),
    element("b", { textContent: "errors" }),
    ...chips(content.errors),
  ] : []);

  const cards = [
    card("input", "", picture(task, "input", grey(input), crosshair)),
    card("truth", "", picture(task, "truth", painted(truth), crosshair)),
  ];
  const rows = [["truth", truth, pixel]];
  for (const { label, name } of content.networks) {
    const network = arrays.networks[label];
    if (!network) continue;
    if (!network.output) {
      cards.push(card(name, "", blank("no predictions")));
      continue;
    }
    const output = slice(network.output, task, place, task.channels);
    const looks = attention(task, network, place);
    const iu = agreement(output, truth);
    const marks = pixel || !looks ? crosshair : looks.points.map(
      (at, i) => ({ at, hue: content.points[i].hue, chosen: i === point }));
    const score = iu === null ? "empty" : `IU ${iu.toFixed(2)}`;
    const parts = [picture(task, `answer of ${name}, ${score}`, painted(output), marks, looks?.points)];
    if (many) {
      parts.push(picture(task, `errors of ${name}`, mistakes(output, truth, size, task.channels),
        crosshair));
    } else if (mapped && !pixel) {
      parts.push(looks
        ? picture(task, `saliency of ${name} at the point ${asked.name}`,
          saliency(slice(looks.levels, task, point, 1), input, asked.hue), [])
        : blank(!network.maps ? "no maps were made of this network"
          : network.maps.skipped.includes(place) ? "no map: nothing in the answer reaches 0.4"
            : "no map of this image"));
    }
    cards.push(card(name, score, ...parts));
    rows.push([name, output, pixel ?? looks?.points[point] ?? null]);
  }
  find("cards").replaceChildren(...cards);
  table(task, rows.filter(([, , at]) => at));
  const where = pixel ? `row ${pixel[0]}, column ${pixel[1]}` : mapped ? `point ${asked.name}` : "";
  find("status").textContent = where && `Values at ${where}` + (pixel ? ":" : " of each answer:");
}

const card = (name, score, ...parts) => element("figure", {},
  element("figcaption", {}, name, element("span", { textContent: score })), ...parts);

const blank = text => element("div", { className: "none", textContent: text });

// The values of every row's image at its pixel: one per channel.
function table(task, rows) {
  const many = task.channels > 1, size = task.height * task.width;
  const names = many ? content.digits.map((_, digit) => `digit ${digit}`) : ["value"];
  const head = element("tr", {}, ...["", "row", "column", ...names].map((text, i) =>
    element("th", { scope: "col", textContent: text, className: i ? "n" : "" })));
  const body = rows.map(([name, image, [y, x]]) => element("tr", {},
    element("th", { scope: "row", textContent: name }),
    ...[y, x].map(number => element("td", { className: "n", textContent: number })),
    ...names.map((_, c) => {
      const value = image[c * size + y * task.width + x] / 255;
      const bar = element("span", { className: "bar" });
      bar.style.width = `${100 * value}%`;
      return element("td", { className: value >= 0.5 ? "n best" : "n" }, value.toFixed(2), bar);
    })));
  find("values").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

// ---------------------------------------------------------------------------- choosing

function thumbnails(task, arrays) {
  const dotted = place => Object.values(arrays.networks).some(n => attention(task, n, place));
  find("examples").replaceChildren(...task.index.map((index, place) => {
    const canvas = element("canvas");
    draw(canvas, task, grey(slice(arrays.input, task, place, 1)), [], 1);
    const radio = element("input", { type: "radio", name: "example", value: place });
    radio.setAttribute("aria-label", `test image ${index}`);
    radio.addEventListener("change", () => change({ place }));
    return element("label", { className: dotted(place) ? "mapped" : "" }, radio, canvas);
  }));
  const any = task.index.some((_, place) => dotted(place));
  find("mapped").hidden = find("points-box").hidden = !any;
  return any;
}

// Seven buttons where the points lie in the box around a digit: left, centre, right.
function pointButtons() {
  const places = { left: 1, centre: 2, right: 3, top: 1, middle: 2, bottom: 3 };
  find("points").replaceChildren(...content.points.map(({ name, hue }, point) => {
    const radio = element("input", { type: "radio", name: "point", value: point });
    radio.addEventListener("change", () => change({ point, pixel: null }));
    const chip = element("i");
    chip.style.background = `hsl(${hue} 100% 45%)`;
    const label = element("label", {}, radio, chip, name);
    const [row, column] = name === "centre" ? ["middle", "centre"] : name.split(" ");
    label.style.gridArea = `${places[row]} / ${places[column]}`;
    return label;
  }));
}

let newest = 0;
let listed = null; // the task whose examples are shown

async function change(changes) {
  const turn = ++newest;
  if ("task" in changes) Object.assign(state, { place: 0, point: 0, pixel: null });
  Object.assign(state, changes);
  const task = content.tasks[state.task];
  const arrays = await loaded(task);
  if (turn !== newest) return; // something else was picked while this was unpacked
  if (task !== listed) {
    listed = task;
    const any = thumbnails(task, arrays);
    if (!any && !state.pixel) state.pixel = [task.height >> 1, task.width >> 1];
    find("row").max = task.height - 1;
    find("column").max = task.width - 1;
  }
  find("task").value = state.task;
  find("examples").querySelector(`[value="${state.place}"]`).checked = true;
  for (const radio of find("points").querySelectorAll("input")) {
    radio.checked = !state.pixel && Number(radio.value) === state.point;
  }
  [find("row").value, find("column").value] = state.pixel ?? ["", ""];
  show(task, arrays);
}

function typed() {
  const [row, column] = [find("row"), find("column")];
  if (row.value === "" || column.value === "") return;
  if (row.checkValidity() && column.checkValidity()) {
    change({ pixel: [Number(row.value), Number(column.value)] });
  }
}

document.addEventListener("keydown", event => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("select, [type=number]")) {
    return;
  }
  const task = content.tasks[state.task];
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && !event.target.matches("[name=point]")) {
    event.preventDefault();
    change({ place: (state.place + step + task.index.length) % task.index.length });
  } else if (content.points[event.key - 1] && !find("points-box").hidden) {
    change({ point: event.key - 1, pixel: null });
  }
});

find("task").append(...content.tasks.map((task, i) =>
  element("option", { value: i, textContent: task.name })));
find("task").addEventListener("change", event => change({ task: Number(event.target.value) }));
find("row").addEventListener("change", typed);
find("column").addEventListener("change", typed);
pointButtons();
// First what has maps to look at.
const first = content.tasks.findIndex(task => Object.values(task.networks).some(n => n.maps));
change({ task: Math.max(0, first) });
