// The slider of the prevalence, and pictures that a click enlarges. Without this the page says the same.
const percent = share => (100 * share).toPrecision(3).replace(/\.?0+$/, "") + " %";
const shown = value => Number.isFinite(value) ? value.toFixed(3) : "none";

for (const box of document.querySelectorAll(".shift")) {
  const { sensitivity, specificity, dice, intervals } = Object.fromEntries(
    Object.entries(box.dataset).map(([name, value]) => [name, JSON.parse(value)]));
  const slider = box.querySelector("input");
  const show = () => {
    const share = 0.005 * 100 ** (slider.value / 1000);  // 0.5 to 50 %, even steps of its logarithm
    const hits = share * sensitivity, alarms = (1 - share) * (1 - specificity);
    const silent = (1 - share) * specificity, misses = share * (1 - sensitivity);
    const values = {
      share: percent(share), ppv: shown(hits / (hits + alarms)), npv: shown(silent / (silent + misses)),
      dice: shown(share * dice + silent), floor: shown(1 - share),
    };
    for (const output of box.querySelectorAll("output")) output.textContent = values[output.dataset.show];
    if (intervals) {
      const place = slider.value / 1000 * (intervals.length - 1), before = Math.min(Math.floor(place), intervals.length - 2);
      const end = column => {
        const [low, high] = [intervals[before][column], intervals[before + 1][column]];
        return shown(low + (place - before) * (high - low));
      };
      for (const range of box.querySelectorAll("[data-range]")) {
        const column = Number(range.dataset.range);
        range.textContent = `95 %: ${end(column)} to ${end(column + 1)}`;
      }
    }
    slider.setAttribute("aria-valuetext", values.share);
  };
  slider.addEventListener("input", show);
  box.hidden = false;
  show();
}

const pictures = [...document.querySelectorAll(".zoom")];
if (pictures.length) {
  const dialog = document.createElement("dialog");
  const large = dialog.appendChild(document.createElement("img"));
  const words = dialog.appendChild(document.createElement("p"));
  document.body.append(dialog);
  let at = 0;
  const look = number => {
    at = (number + pictures.length) % pictures.length;
    const figure = pictures[at].closest("figure");
    large.src = pictures[at].querySelector("img").src;
    large.alt = words.textContent = figure.querySelector("figcaption").innerText.replace("\n", " · ");
  };
  pictures.forEach((picture, number) => picture.addEventListener("click", () => { look(number); dialog.showModal(); }));
  dialog.addEventListener("click", () => dialog.close());  // Escape closes a dialog by itself
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowRight") look(at + 1);
    if (event.key === "ArrowLeft") look(at - 1);
  });
  dialog.addEventListener("close", () => pictures[at].focus());
}
