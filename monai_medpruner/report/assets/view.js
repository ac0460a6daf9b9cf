
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const LABELS = ["unread", "merged", "selected", "contextual"];
const TOKENS = ["not seen by the model", "merged or dropped", "selected", "contextual"];
/* NiiVue draws an overlay with opacity (value / cal_min) ** 2 and with the color of its value, so each label gets a value:
   what was not kept is dimmed, what was kept is tinted */
const SHADES = [100, 70, 48, 62];
const COLORS = { I: [0, 110, 140, 141, 168, 169, 255], R: [40, 40, 40, 255, 255, 0, 0], G: [130, 130, 130, 140, 140, 0, 0], B: [255, 255, 255, 0, 0, 0, 0], A: [0, 255, 255, 255, 255, 255, 255] };
const UNREAD_ALONE = 90;
const MASK_COLOR = { I: [0, 255], R: [235, 235], G: [60, 60], B: [160, 160], A: [0, 255] };
const MASK_OPACITY = 0.45;
const state = { overlay: "tokens", opacity: 0.8, window: 0, lesion: data.mask, voxel: data.start };
const volumes = {};
let niivue, types, loading;

function problem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = false;
}

const times = (matrix, point) => matrix.slice(0, 3).map((row) => row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3]);
const sliceOf = (voxel) => data.sliceFlipped ? data.shape[data.sliceAxis] - 1 - voxel[data.sliceAxis] : voxel[data.sliceAxis];

/* --- moving --- */

function goTo(voxel) {
  niivue.scene.crosshairPos = niivue.mm2frac(times(data.toMm, voxel));
  niivue.createOnLocationChange();
  niivue.drawScene();
}

function goToSlice(index) {
  const voxel = [...state.voxel];
  const last = data.slices.length - 1;
  const place = Math.max(0, Math.min(last, index));
  voxel[data.sliceAxis] = data.sliceFlipped ? last - place : place;
  goTo(voxel);
}

function goToKept(step) {
  let index = sliceOf(state.voxel) + step;
  while (data.slices[index]?.state === "dropped") index += step;
  if (data.slices[index]) goToSlice(index);
}

/* --- what is at the crosshair --- */

const side = (value, names) => `${names[value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`;

function moved({ mm, values }) {
  const voxel = times(data.toVoxel, mm).map((one, axis) => Math.max(0, Math.min(data.shape[axis] - 1, Math.round(one))));
  const found = Object.fromEntries(values.map((one) => [one.name.split(".")[0], one.value]));
  const index = sliceOf(voxel);
  const label = SHADES.indexOf(Math.round(found.labels));
  state.voxel = voxel;
  byId("place").textContent = `${side(mm[0], "RL")}  ${side(mm[1], "AP")}  ${side(mm[2], "SI")} mm`;
  byId("value").textContent = `${Number(found.volume.toPrecision(5))}${data.unit}`;
  byId("slice").textContent = `${index}, of 0 to ${data.slices.length - 1}`;
  byId("reason").textContent = data.slices[index].why;
  byId("token").textContent = TOKENS[label];
  LABELS.forEach((name, value) => byId(`key_${name}`).classList.toggle("here", value === label));
  if (data.mask) byId("inside").textContent = found.mask > 0.5 ? "inside" : "outside";
  if (byId("weight")) {
    const loaded = "importance" in found;
    byId("weight").textContent = !label ? "none" : loaded ? `${found.importance.toFixed(2)} times the mean` : "press h to load it";
  }
}

/* --- windows and overlays --- */

function press(group, chosen) {
  for (const button of byId(group).children) button.setAttribute("aria-pressed", String(chosen(button.dataset.name)));
}

function setWindow(index) {
  if (!data.windows[index]) return;
  state.window = index;
  volumes.volume.cal_min = data.windows[index].low;
  volumes.volume.cal_max = data.windows[index].high;
  niivue.updateGLVolume();
  press("windows", (name) => name === String(index));
}

async function setOverlay(name) {
  state.overlay = state.overlay === name ? "none" : name;
  if (state.overlay === "importance") await (loading ??= loadImportance());
  showOverlays();
}

function showOverlays() {
  const tokens = state.overlay === "tokens";
  volumes.labels.opacity = state.overlay === "none" ? 0 : state.opacity;
  volumes.labels.cal_max = SHADES[0];
  volumes.labels.cal_min = tokens ? SHADES[0] : UNREAD_ALONE;
  volumes.labels.colormapType = tokens ? types.ZERO_TO_MAX_TRANSLUCENT_BELOW_MIN : types.ZERO_TO_MAX_TRANSPARENT_BELOW_MIN;
  if (volumes.importance) volumes.importance.opacity = state.overlay === "importance" ? state.opacity : 0;
  if (volumes.mask) volumes.mask.opacity = state.lesion ? MASK_OPACITY : 0;
  niivue.updateGLVolume();
  niivue.createOnLocationChange();
  press("overlays", (name) => name === state.overlay || (name === "lesion" && state.lesion));
  if (byId("ramp")) byId("ramp").hidden = state.overlay !== "importance";
  LABELS.slice(1).forEach((name) => { byId(`key_${name}`).hidden = state.overlay === "importance"; });
}

/* three planes in a row, or one below the other where the page is narrow, as large as they fit */
function layOut() {
  const [x, y, z] = sizeMm();
  const narrow = matchMedia("(max-width: 700px)").matches;
  const place = byId("planes").parentElement;
  place.style.aspectRatio = narrow ? `${Math.max(x, y)} / ${y + 2 * z}` : `${2 * x + y} / ${Math.max(y, z)}`;
  niivue.setMultiplanarLayout(narrow ? types.COLUMN : types.ROW);
}

function sizeMm() {
  const { dimsRAS, pixDimsRAS } = volumes.volume;
  return [1, 2, 3].map((axis) => dimsRAS[axis] * pixDimsRAS[axis]);
}

function setLesion() {
  if (!data.mask) return;
  state.lesion = !state.lesion;
  showOverlays();
}

async function loadImportance() {
  volumes.importance = await niivue.addVolumeFromUrl({
    url: "importance.nii.gz", name: "importance.nii.gz", colormap: "inferno", opacity: 0,
  });
  volumes.importance.cal_min = data.highImportance / 2;
  volumes.importance.cal_max = data.highImportance;
  if (volumes.mask) niivue.setVolume(volumes.mask, niivue.volumes.length - 1);
  volumes.importance.colormapType = types.ZERO_TO_MAX_TRANSLUCENT_BELOW_MIN;
}

function buttons(group, entries, act) {
  for (const [name, text] of entries) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = name;
    button.textContent = text;
    button.addEventListener("click", () => act(name));
    byId(group).append(button);
  }
}

/* --- keys --- */

const keys = {
  ArrowLeft: () => goToSlice(sliceOf(state.voxel) - 1), ArrowRight: () => goToSlice(sliceOf(state.voxel) + 1),
  PageUp: () => goToKept(-1), PageDown: () => goToKept(1), Home: () => goToSlice(0), End: () => goToSlice(data.slices.length - 1),
  t: () => setOverlay("tokens"), h: () => data.highImportance !== null && setOverlay("importance"), o: setLesion,
};

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key)) return;
  const action = keys[event.key] ?? (/^[1-9]$/.test(event.key) ? () => setWindow(Number(event.key) - 1) : null);
  if (action) {
    event.preventDefault();
    action();
  }
  /* NiiVue has other keys on its canvas */
  if (event.target === byId("planes") && event.key !== "Tab") event.stopPropagation();
}

/* --- start --- */

/* the image smooth, maps in whole voxels: between two labels there is no third */
function sharpenOverlays() {
  const update = niivue.updateInterpolation.bind(niivue);
  niivue.updateInterpolation = (layer, linear) => {
    niivue.opts.isNearestInterpolation = layer > 0;
    update(layer, linear);
    niivue.opts.isNearestInterpolation = false;
  };
}

async function start({ Niivue, COLORMAP_TYPE, DRAG_MODE, MULTIPLANAR_TYPE, SHOW_RENDER }) {
  types = { ...COLORMAP_TYPE, ...MULTIPLANAR_TYPE };
  niivue = new Niivue({
    backColor: [0, 0, 0, 1], fontColor: [0.9, 0.9, 0.9, 1], crosshairColor: [0.95, 0.85, 0.2, 0.9], crosshairWidth: 0.4, crosshairWidthUnit: "percent", crosshairGap: 16,
    isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarPadPixels: 6, multiplanarShowRender: SHOW_RENDER.NEVER,
    fontMinPx: 18, dragMode: DRAG_MODE.windowing, dragAndDropEnabled: false, logLevel: "error", loadingText: "reading ...",
  });
  sharpenOverlays();
  niivue.onLocationChange = moved;
  niivue.onIntensityChange = () => press("windows", () => false);
  await niivue.attachToCanvas(byId("planes"));
  niivue.addColormap("tokens", COLORS);
  niivue.addColormap("mask", MASK_COLOR);
  await niivue.loadVolumes([
    { url: "volume.nii", name: "volume.nii", colormap: "gray", cal_min: data.windows[0].low, cal_max: data.windows[0].high },
    { url: "labels.nii.gz", name: "labels.nii.gz", opacity: 0, colormap: "tokens" },
    ...(data.mask ? [{ url: "mask.nii.gz", name: "mask.nii.gz", opacity: 0, colormap: "mask", cal_min: 0.5, cal_max: 1 }] : []),
  ]);
  [volumes.volume, volumes.labels, volumes.mask] = niivue.volumes;
  volumes.labels.img.forEach((label, index, all) => { all[index] = SHADES[label]; });
  buttons("windows", data.windows.map((one, index) => [String(index), one.name]), (name) => setWindow(Number(name)));
  buttons("overlays", [
    ["tokens", "Tokens"], ...(data.highImportance === null ? [] : [["importance", "Importance"]]), ...(data.mask ? [["lesion", "Lesion"]] : []),
  ], (name) => name === "lesion" ? setLesion() : setOverlay(name));
  byId("opacity").addEventListener("input", (event) => {
    state.opacity = Number(event.target.value) / 100;
    showOverlays();
  });
  document.addEventListener("keydown", keyed, true);
  matchMedia("(max-width: 700px)").addEventListener("change", layOut);
  layOut();
  setWindow(0);
  showOverlays();
  goTo(data.start);
  document.documentElement.dataset.ready = Math.round(performance.now());
}

if (document.createElement("canvas").getContext("webgl2") === null) {
  problem("The viewer needs WebGL 2, which this browser does not offer here: choose another browser, or turn its graphics acceleration on.");
} else {
  import("./niivue.js").then(start).catch((error) => {
    problem(`The viewer could not start: ${error.message}`);
    throw error;
  });
}
