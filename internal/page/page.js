"use strict";
(() => {
  const $ = id => document.getElementById(id);
  const text = i => DATA.texts[i];
  const pad = (n, w) => String(n).padStart(w, "0");
  // Times are shown in the zone in which the page was written, wherever it is read.
  const clock = ms => {
    const d = new Date(DATA.start + ms + DATA.offset * 60000);
    return `${pad(d.getUTCHours(), 2)}:${pad(d.getUTCMinutes(), 2)}:${pad(d.getUTCSeconds(), 2)}.${pad(d.getUTCMilliseconds(), 3)}`;
  };
  const span = ms => ms < 10000 ? (ms / 1000).toFixed(1) + "s" : ms < 60000 ? Math.floor(ms / 1000) + "s"
    : ms < 3600000 ? Math.floor(ms / 60000) + "m" + pad(Math.floor(ms / 1000) % 60, 2) + "s" : Math.floor(ms / 3600000) + "h" + pad(Math.floor(ms / 60000) % 60, 2) + "m";
  const element = (name, className, content) => {
    const e = document.createElement(name);
    if (className) e.className = className;
    if (content !== undefined) e.textContent = content;
    return e;
  };
  const steps = DATA.steps.map(s => ({ sequence: s[0], at: s[1], kind: s[2], pod: s[3], what: text(s[4]), code: text(s[5]), why: text(s[6]), outcome: text(s[7]), outcomeSequence: s[8], cause: s[9], body: s[10] }));
  const pods = DATA.pods.map(p => ({ name: p[0], gone: p[1], spans: p[2].map(s => ({ state: text(s[0]), from: s[1], sequence: s[2], revision: text(s[3]), images: text(s[4]), note: text(s[5]) })) }));
  const byPod = pods.map(() => []);
  for (const s of steps) if (s.pod >= 0 && s.kind !== "tick") byPod[s.pod].push(s);

  // Places and times.
  const xOf = at => {
    for (const [from, to, start, width] of DATA.axis) if (at < to) return DATA.left + DATA.plot * (start + width * Math.max(0, at - from) / (to - from));
    return DATA.left + DATA.plot;
  };
  const timeAt = x => {
    const place = Math.min(1, Math.max(0, (x - DATA.left) / DATA.plot));
    for (const [from, to, start, width] of DATA.axis) if (place < start + width) return from + (place - start) / width * (to - from);
    return DATA.length;
  };
  const last = (list, at, key) => { let found; for (const one of list) { if (one[key] > at) break; found = one; } return found; };
  const where = (svg, event) => {
    const box = svg.getBoundingClientRect(), scale = DATA.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  const crosses = [...document.querySelectorAll(".cross")];
  const cross = at => { for (const c of crosses) c.setAttribute("d", at === undefined ? "" : `M${xOf(at)} 0V${c.ownerSVGElement.viewBox.baseVal.height}`); };
  const lane = document.querySelector(".lane");
  const showLane = i => {
    lane.setAttribute("width", i === undefined ? 0 : DATA.width);
    if (i !== undefined) { lane.setAttribute("y", DATA.lanesY + DATA.row * i); lane.setAttribute("height", DATA.row); }
  };
  const tip = $("tip");
  const showTip = (event, nodes) => {
    tip.replaceChildren(...nodes);
    tip.hidden = false;
    const w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = Math.min(event.clientX + 16, innerWidth - w - 8) + "px";
    tip.style.top = (event.clientY + 18 + h > innerHeight ? event.clientY - h - 12 : event.clientY + 18) + "px";
  };
  const hide = () => { tip.hidden = true; cross(); showLane(); };
  const line = (strong, soft) => { const p = element("p"); if (strong) p.append(element("b", "", strong)); if (soft) p.append(strong ? "  " : "", element("i", "", soft)); return p; };
  const paragraph = words => element("p", "", words);

  const lanes = $("lanes"), curve = $("curve");
  const laneAt = event => { const [x, y] = where(lanes, event); return [Math.floor((y - DATA.lanesY) / DATA.row), timeAt(x)]; };
  lanes.addEventListener("mousemove", event => {
    const [i, at] = laneAt(event), pod = pods[i];
    if (!pod) return hide();
    cross(at); showLane(i);
    const there = pod.gone === null || at < pod.gone ? last(pod.spans, at, "from") : undefined;
    const nodes = [line(pod.name, clock(at))];
    if (there) {
      nodes.push(paragraph(`${there.state} since ${clock(there.from)}, ${there.images}`));
      if (there.note) nodes.push(paragraph(there.note));
    } else nodes.push(paragraph(pod.gone !== null && at >= pod.gone ? "gone" : "does not exist yet"));
    const near = last(byPod[i], timeAt(where(lanes, event)[0] + 4), "at");
    if (near) {
      nodes.push(line("", `${near.sequence}  ${clock(near.at)}  ${near.what}`));
      if (near.code) nodes.push(paragraph(`${near.code}: ${near.why}`));
      if (near.outcome) nodes.push(line("", near.outcome));
    }
    showTip(event, nodes);
  });
  lanes.addEventListener("click", event => { const pod = pods[laneAt(event)[0]]; if (pod) { find.value = pod.name; fill(); } });
  curve.addEventListener("mousemove", event => {
    const at = timeAt(where(curve, event)[0]), sample = DATA.curve.filter(s => s[0] <= at).pop();
    if (!sample) return hide();
    cross(at);
    const nodes = [line(clock(at)), paragraph(`${sample[2]} of ${sample[1]} Pods available; ${sample[3]} wanted, ${sample[4]} were to stay`)];
    const edit = last(steps.filter(s => s.kind === "edit"), at, "at");
    if (edit) nodes.push(line("", edit.what));
    showTip(event, nodes);
  });
  for (const svg of [lanes, curve]) svg.addEventListener("mouseleave", hide);

  // The table.
  const rows = $("rows"), find = $("find"), ticks = $("ticks");
  const row = step => {
    const tr = element("tr", step.kind + (step.body >= 0 ? " has" : ""));
    tr.append(element("td", "n", step.sequence), element("td", "n", clock(step.at)), element("td", "n", "+" + span(step.at)), element("td", "", step.what));
    const why = element("td");
    if (step.code) why.append(element("strong", "", step.code), ": " + step.why);
    tr.append(why, element("td", "", step.outcome ? `${step.outcome} (${step.outcomeSequence})` : ""));
    tr.addEventListener("mouseenter", () => { cross(step.at); showLane(step.pod >= 0 ? step.pod : undefined); });
    tr.addEventListener("mouseleave", hide);
    if (step.body >= 0) tr.addEventListener("click", () => {
      if (tr.classList.toggle("open")) {
        const more = element("tr", "body"), td = element("td");
        td.colSpan = 6;
        td.append(element("pre", "", `# decided at position ${step.cause}; written:\n` + DATA.bodies[step.body].map(i => DATA.lines[i]).join("\n")));
        more.append(td);
        tr.after(more);
      } else if (tr.nextSibling && tr.nextSibling.className === "body") tr.nextSibling.remove();
    });
    return tr;
  };
  let filling = 0;
  const fill = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(w => w), turn = ++filling;
    const chosen = steps.filter(s => (ticks.checked || s.kind !== "tick") && words.every(w => `${s.sequence} ${s.what} ${s.code} ${s.why} ${s.outcome}`.toLowerCase().includes(w)));
    rows.replaceChildren();
    $("shown").textContent = chosen.length === steps.length ? `${steps.length} steps` : `${chosen.length} of ${steps.length} steps`;
    let next = 0;
    const more = () => {
      if (turn !== filling) return;
      rows.append(...chosen.slice(next, next += 400).map(row));
      if (next < chosen.length) setTimeout(more);
    };
    more();
  };
  find.addEventListener("input", fill);
  ticks.addEventListener("change", fill);
  fill();
})();
