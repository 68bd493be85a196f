/**
 * The element's style. Hosts set `--cp-*` properties on the element or above it and reach pieces by `::part()`;
 * docs/ui.md lists both. Sizes follow the element's own width, and directions are logical, for both writing directions.
 */
const CSS = `
:host {
  color-scheme: light dark;
  display: block;
  container-type: inline-size;
  --bg: var(--cp-bg, light-dark(#f6f7f9, #101318));
  --surface: var(--cp-surface, light-dark(#fff, #181c23));
  --fg: var(--cp-fg, light-dark(#1a1d23, #e8eaf0));
  --muted: var(--cp-muted, light-dark(#59606e, #a2a9b8));
  --border: var(--cp-border, light-dark(#e1e4ea, #2b313c));
  --control: var(--cp-control, light-dark(#868d9b, #6b7382));
  --accent: var(--cp-accent, light-dark(#3b54d9, #9aacff));
  --accent-fg: var(--cp-accent-fg, light-dark(#fff, #10142b));
  --ok: var(--cp-ok, light-dark(#13693d, #6bd49b));
  --warn: var(--cp-warn, light-dark(#7d4b00, #f2c063));
  --danger: var(--cp-danger, light-dark(#b3261e, #ff9b92));
  --radius: var(--cp-radius, 10px);
  --space: var(--cp-space, 1rem);
  --shadow: var(--cp-shadow, 0 1px 2px light-dark(#1a1d2314, #0006));
  --tint: color-mix(in srgb, var(--accent) 10%, var(--surface));
  color: var(--fg);
  background: var(--bg);
  border-radius: var(--radius);
  font: 400 0.9375rem/1.55 var(--cp-font, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif);
  text-align: start;
}
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([hidden]), [hidden] { display: none !important; }
*, ::before, ::after { box-sizing: border-box; }
h2, h3, h4, p, ul, ol, dl, dd, fieldset { margin: 0; padding: 0; border: 0; }
ul, ol { list-style: none; }
h2 { font-size: 1.375rem; font-weight: 650; letter-spacing: -0.015em; line-height: 1.25; overflow-wrap: anywhere; }
h3 { font-size: 1rem; font-weight: 620; line-height: 1.35; overflow-wrap: anywhere; }
h4 { font-size: 0.875rem; font-weight: 620; }
p, dd, dt, li { overflow-wrap: anywhere; }
h2:focus, h3:focus, .panel:focus { outline: none; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
code, .code { font-family: var(--cp-font-mono, ui-monospace, "SF Mono", Menlo, Consolas, monospace); font-size: 0.8125rem; overflow-wrap: anywhere; }
.vh { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.muted, .hint, .optional { color: var(--muted); }
.small, .hint { font-size: 0.8125rem; }
.strong { font-weight: 600; }
.block { display: block; }
.grow { flex: 1; min-inline-size: 0; }
.wide { flex-basis: 100%; }
.lead { color: var(--muted); margin-block: 0.25rem var(--space); }
.icon { inline-size: 1.1em; block-size: 1.1em; flex: none; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; vertical-align: -0.16em; }
:dir(rtl) > .i-back, :dir(rtl) > .i-more { transform: scaleX(-1); }
.shell { padding: var(--cp-padding, 1.25rem); }

nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; border-block-end: 1px solid var(--border); margin-block-end: calc(var(--space) * 1.75); }
nav a, nav .link { padding: 0.5rem 0; margin-block-end: -1px; border-block-end: 2px solid transparent; color: var(--muted); font-weight: 550; text-decoration: none; border-radius: 0; }
nav a:hover, nav .link:hover { color: var(--fg); }
nav [aria-current] { color: var(--fg); border-color: var(--accent); }
.tabs { margin-block: var(--space); }

a, .link { color: var(--accent); text-decoration: underline; text-decoration-thickness: 1px; text-underline-offset: 0.2em; }
button.link { all: unset; color: var(--accent); cursor: pointer; text-decoration: underline; text-decoration-thickness: 1px; text-underline-offset: 0.2em; }
nav button.link { box-sizing: border-box; color: var(--muted); padding: 0.5rem 0; margin-block-end: -1px; border-block-end: 2px solid transparent; text-decoration: none; font-weight: 550; }
nav button.link[aria-current] { color: var(--fg); border-color: var(--accent); }
button.link:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.back, button.back { display: inline-flex; align-items: center; gap: 0.25rem; margin-block-end: 0.75rem; color: var(--muted); text-decoration: none; font-size: 0.875rem; font-weight: 550; }
.back:hover { color: var(--fg); }
.cover, button.cover { color: inherit; text-decoration: none; }
.cover::after { content: ""; position: absolute; inset: 0; border-radius: inherit; }
.cover:focus-visible, button.cover:focus-visible { outline: none; }
.cover:focus-visible::after { outline: 2px solid var(--accent); outline-offset: 2px; }

button:not(.link, .chip) {
  display: inline-flex; align-items: center; justify-content: center; gap: 0.4rem; min-block-size: 2.375rem; padding: 0.375rem 0.875rem;
  font: inherit; font-size: 0.875rem; font-weight: 580; line-height: 1.25; color: var(--fg); background: var(--surface);
  border: 1px solid color-mix(in srgb, var(--control) 60%, var(--border)); border-radius: calc(var(--radius) * 0.8); cursor: pointer; box-shadow: var(--shadow);
}
button:not(.link, .chip):hover { background: color-mix(in srgb, var(--fg) 5%, var(--surface)); }
button.primary:not(.link) { color: var(--accent-fg); background: var(--accent); border-color: transparent; }
button.primary:not(.link):hover { background: color-mix(in srgb, var(--accent) 88%, var(--fg)); }
button.danger:not(.link) { color: var(--danger); border-color: color-mix(in srgb, var(--danger) 55%, var(--surface)); }
button.danger:not(.link):hover { background: color-mix(in srgb, var(--danger) 9%, var(--surface)); }
button.small:not(.link) { min-block-size: 2rem; padding: 0.1875rem 0.625rem; font-size: 0.8125rem; }
button.quiet:not(.link) { background: none; border-color: transparent; box-shadow: none; color: var(--muted); }
button:disabled { opacity: 0.55; cursor: not-allowed; }
.busy { cursor: progress; opacity: 0.75; }
.busy::after { content: ""; inline-size: 0.85em; block-size: 0.85em; border: 2px solid currentColor; border-inline-end-color: transparent; border-radius: 50%; animation: turn 0.8s linear infinite; }
@keyframes turn { to { rotate: 1turn; } }
.actions { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; }
form > .actions, dialog > .actions, p.actions { margin-block-start: var(--space); }

.toolbar { display: flex; flex-wrap: wrap; gap: 0.75rem 1rem; align-items: center; margin-block-end: var(--space); }
.search { position: relative; flex: 1 1 14rem; max-inline-size: 24rem; }
.search .icon { position: absolute; inset-block: 0; margin-block: auto; inset-inline-start: 0.75rem; color: var(--muted); pointer-events: none; }
.search input[type][id] { padding-inline-start: 2.25rem; }
.chips { display: flex; flex-wrap: wrap; gap: 0.375rem; }
.chip { display: inline-flex; gap: 0.4rem; align-items: center; min-block-size: 2rem; padding: 0.125rem 0.75rem; font: inherit; font-size: 0.8125rem; font-weight: 550; color: var(--muted); background: none; border: 1px solid var(--border); border-radius: 99px; cursor: pointer; }
.chip:hover { color: var(--fg); border-color: var(--control); }
.chip[aria-pressed="true"] { color: var(--accent); background: var(--tint); border-color: var(--accent); }
.count { font-variant-numeric: tabular-nums; font-weight: 450; }

.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: var(--space); }
.card, .box, .list, .empty, table { background: var(--surface); border: 1px solid var(--border); border-radius: var(--radius); box-shadow: var(--shadow); }
.card { position: relative; display: flex; flex-direction: column; gap: 0.5rem; padding: calc(var(--space) * 1.125); transition: border-color 0.15s, translate 0.15s; }
.card:hover { border-color: var(--control); translate: 0 -1px; }
.card p { color: var(--muted); font-size: 0.875rem; }
.card > :last-child { margin-block-start: auto; }
.card .small { font-size: 0.8125rem; padding-block-start: 0.25rem; }
.card-head { display: flex; align-items: flex-start; justify-content: space-between; gap: 0.5rem; margin-block-end: 0.25rem; }
.box { padding: calc(var(--space) * 1.25); }
.box > h3 { margin-block-end: 0.75rem; }
.mono { display: inline-grid; place-items: center; flex: none; inline-size: 2.5rem; block-size: 2.5rem; border-radius: calc(var(--radius) * 0.8); font-size: 0.875rem; font-weight: 680; letter-spacing: 0.02em; color: light-dark(oklch(0.4 0.12 var(--hue)), oklch(0.88 0.08 var(--hue))); background: light-dark(oklch(0.93 0.04 var(--hue)), oklch(0.33 0.06 var(--hue))); }
.hue0 { --hue: 265; } .hue1 { --hue: 155; } .hue2 { --hue: 35; } .hue3 { --hue: 320; } .hue4 { --hue: 210; } .hue5 { --hue: 90; }
.head { display: flex; flex-wrap: wrap; align-items: center; gap: 0.875rem; margin-block-end: var(--space); }
.head .grow { flex-basis: 12rem; }
.head .mono { inline-size: 3rem; block-size: 3rem; font-size: 1rem; }
.columns { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 20rem); gap: calc(var(--space) * 1.5); align-items: start; margin-block-start: calc(var(--space) * 1.25); }
.stack { display: grid; gap: var(--space); }
.stack > button { justify-self: start; }
.box > p + button { margin-block-start: 0.75rem; }
.prose { max-inline-size: 42rem; }
.prose p { margin-block-start: 0.625rem; }
.prose p, .detail { white-space: pre-line; }
.facts { display: grid; gap: 0.625rem; }
.facts li { display: flex; gap: 0.625rem; }
.facts .icon { margin-block-start: 0.2rem; color: var(--muted); }
.facts .i-ok { color: var(--ok); }
section > h3 { margin-block-end: 0.625rem; }
section + section:not(.box) { margin-block-start: calc(var(--space) * 1.75); }
.section-head { display: flex; align-items: center; justify-content: space-between; gap: 1rem; margin-block-end: 0.625rem; }
.empty { padding: calc(var(--space) * 2.5) var(--space); text-align: center; color: var(--muted); border-style: dashed; box-shadow: none; background: none; }
.empty .strong { color: var(--fg); font-size: 1rem; }
.empty .actions { justify-content: center; }

.list { overflow: clip; }
.list li { position: relative; display: flex; align-items: center; gap: 0.875rem; padding: 0.875rem calc(var(--space) * 1.125); }
.list li + li { border-block-start: 1px solid var(--border); }
.list .wrap { flex-wrap: wrap; }
.list .wrap .grow { flex-basis: 14rem; }
.list .linked:hover { background: color-mix(in srgb, var(--fg) 3%, var(--surface)); }
.list .i-more { color: var(--muted); }
.list .wide:empty { display: none; }

.badge { display: inline-flex; align-items: center; gap: 0.3rem; padding: 0.0625rem 0.5rem; border-radius: 99px; font-size: 0.75rem; font-weight: 600; line-height: 1.5; white-space: nowrap; color: var(--tone, var(--muted)); background: color-mix(in srgb, var(--tone, var(--muted)) 11%, var(--surface)); }
.ok { --tone: var(--ok); } .warn { --tone: var(--warn); } .danger { --tone: var(--danger); } .info { --tone: var(--accent); }
.badge .i-run { animation: turn 1.2s linear infinite; }
.panel { display: flex; gap: 0.75rem; padding: 0.75rem 0.875rem; margin-block: 0.75rem; border: 1px solid color-mix(in srgb, var(--tone) 35%, var(--surface)); border-radius: calc(var(--radius) * 0.8); background: color-mix(in srgb, var(--tone) 7%, var(--surface)); }
.panel > div { flex: 1; min-inline-size: 0; }
.panel > .icon { color: var(--tone); margin-block-start: 0.2rem; }
.panel details { margin-block-start: 0.25rem; font-size: 0.875rem; }
.panel ul { display: grid; gap: 0.25rem; margin-block-start: 0.25rem; }
.panel .link { color: inherit; }
summary { cursor: pointer; inline-size: fit-content; }
.toast { position: fixed; z-index: 9; inset-block-end: 1.25rem; inset-inline: 1rem; margin-inline: auto; inline-size: fit-content; max-inline-size: 28rem; padding: 0.625rem 1rem; border-radius: var(--radius); color: var(--surface); background: var(--fg); box-shadow: 0 6px 24px #0004; font-size: 0.875rem; font-weight: 550; }
.toast:empty { padding: 0; }

.steps { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; margin-block-end: var(--space); font-size: 0.875rem; color: var(--muted); }
.steps li { display: flex; align-items: center; gap: 0.5rem; font-weight: 550; }
.steps .dot { display: grid; place-items: center; inline-size: 1.5rem; block-size: 1.5rem; border-radius: 50%; border: 1px solid var(--control); font-size: 0.75rem; }
.steps [aria-current] { color: var(--fg); }
.steps [aria-current] .dot { color: var(--accent-fg); background: var(--accent); border-color: transparent; }
.steps .done .dot { color: var(--ok); border-color: currentColor; }
.step { max-inline-size: 44rem; }
.slot { margin-block: 0.75rem; box-shadow: none; min-inline-size: 0; }
.slot legend { display: flex; align-items: center; gap: 0.625rem; float: inline-start; inline-size: 100%; font-weight: 620; margin-block-end: 0.5rem; padding: 0; }
.slot legend + * { clear: both; }
.slot .mono { inline-size: 2rem; block-size: 2rem; font-size: 0.75rem; }
.slot > .hint { margin-block-end: 0.75rem; }
.summary-list { margin-block: 0.25rem var(--space); }
.summary-list > div { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr; gap: 0.25rem 1rem; padding-block: 0.5rem; border-block-end: 1px solid var(--border); }
.summary-list dt { color: var(--muted); }
.summary-list dd { white-space: pre-line; }

.fields, .form { display: grid; gap: 1.125rem; min-inline-size: 0; }
form > .field, form > .form { margin-block-start: 0.5rem; }
.field + form > .form { margin-block-start: 1.125rem; }
form > .field + .form:not(:empty) { margin-block-start: 1.125rem; }
.field { display: grid; gap: 0.3125rem; min-inline-size: 0; max-inline-size: 34rem; }
.field label, .field legend { font-weight: 580; font-size: 0.875rem; padding: 0; }
.optional { font-weight: 400; font-size: 0.8125rem; margin-inline-start: 0.5rem; }
.hint { white-space: pre-line; }
.hint:empty { display: none; }
.error { color: var(--danger); font-size: 0.8125rem; font-weight: 550; }
.group { border: 1px solid var(--border); border-radius: calc(var(--radius) * 0.8); padding: 0.875rem; max-inline-size: 36rem; }
.group legend { float: inline-start; inline-size: 100%; }
.group legend + * { clear: both; }
.group.bad, [aria-invalid="true"][aria-invalid][part] { border-color: var(--danger); }
.group > .fields, .inline + .fields { margin-block-start: 0.625rem; }
.inline { grid-template-columns: auto 1fr; column-gap: 0.625rem; align-items: start; }
.inline input { margin-block-start: 0.25rem; }
.below { border-block-start: 1px solid var(--border); padding-block-start: 0.875rem; margin-block-start: 0.75rem; }
input, select, textarea { font: inherit; color: inherit; accent-color: var(--accent); }
input:not([type="checkbox"], [type="radio"]), select, textarea { inline-size: 100%; min-block-size: 2.5rem; padding: 0.4375rem 0.75rem; background: var(--surface); border: 1px solid var(--control); border-radius: calc(var(--radius) * 0.7); }
select { appearance: none; padding-inline-end: 2rem; background-image: linear-gradient(45deg, transparent 50%, currentColor 50%), linear-gradient(-45deg, transparent 50%, currentColor 50%); background-position: calc(100% - 1.125rem) 55%, calc(100% - 0.8125rem) 55%; background-size: 0.3125rem 0.3125rem; background-repeat: no-repeat; }
select:dir(rtl) { background-position: 0.8125rem 55%, 1.125rem 55%; }
option { color: CanvasText; background: Canvas; }
textarea { resize: vertical; line-height: 1.5; }
input:focus-visible, select:focus-visible, textarea:focus-visible { outline-offset: -1px; border-color: var(--accent); }
::placeholder { color: var(--muted); opacity: 1; }
.short { max-inline-size: 10rem; }
[type="checkbox"], [type="radio"] { inline-size: 1.0625rem; block-size: 1.0625rem; margin: 0; flex: none; translate: 0 0.125rem; }
.radios { display: grid; gap: 0.5rem; margin-block-start: 0.375rem; }
.radio { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0.625rem; min-block-size: 1.75rem; }
.radio label { font-weight: 450; flex: 1; min-inline-size: 8rem; overflow-wrap: anywhere; }
.rows { display: grid; gap: 0.625rem; margin-block: 0.375rem 0.625rem; }
.rows:empty { margin: 0; }
.row { display: flex; align-items: end; gap: 0.5rem; }
.row > .field { flex: 1; }
.row > .group + button { align-self: start; }
.combo { position: relative; }
.combo.busy::after { position: absolute; inset-inline-end: 0.875rem; inset-block-start: 0.875rem; }
.options { position: absolute; z-index: 3; inset-inline: 0; inset-block-start: 100%; max-block-size: 15rem; overflow: auto; margin-block-start: 0.25rem; padding: 0.25rem; background: var(--surface); border: 1px solid var(--border); border-radius: calc(var(--radius) * 0.7); box-shadow: 0 8px 28px #0003; }
.options li { padding: 0.4375rem 0.625rem; border-radius: calc(var(--radius) * 0.5); cursor: pointer; }
.options li:hover, .options [aria-selected="true"] { background: var(--tint); }
.options .more { color: var(--accent); font-weight: 550; }

table { inline-size: 100%; border-collapse: separate; border-spacing: 0; font-size: 0.875rem; }
th, td { text-align: start; padding: 0.625rem 0.75rem; vertical-align: top; }
th { color: var(--muted); font-size: 0.75rem; font-weight: 600; }
td { border-block-start: 1px solid var(--border); font-variant-numeric: tabular-nums; }
:is(th, td):first-child { padding-inline-start: calc(var(--space) * 1.125); }
.c-actions { display: flex; justify-content: flex-end; gap: 0.375rem; flex-wrap: wrap; }
.c-status { max-inline-size: 18rem; }
.c-duration, .c-attempt { white-space: nowrap; }
.why { display: block; margin-block-start: 0.25rem; font-size: 0.8125rem; color: var(--muted); }
.far progress { display: block; inline-size: 100%; max-inline-size: 10rem; accent-color: var(--accent); }
.bar { display: block; inline-size: 5rem; block-size: 4px; margin-block-start: 0.375rem; border-radius: 2px; }
.p0 { fill: color-mix(in srgb, var(--muted) 55%, var(--surface)); } .p1 { fill: var(--warn); } .p2 { fill: var(--accent); }
.detail-row td { border-block-start: 0; padding-block-start: 0; }
.detail-body { display: grid; gap: 0.625rem; padding: 0.875rem; border-radius: calc(var(--radius) * 0.8); background: var(--bg); }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; }
.legend > div { display: flex; gap: 0.375rem; align-items: center; }
.legend > div::before { content: ""; inline-size: 0.5rem; block-size: 0.5rem; border-radius: 2px; background: var(--key); }
.l0 { --key: color-mix(in srgb, var(--muted) 55%, var(--surface)); } .l1 { --key: var(--warn); } .l2 { --key: var(--accent); }
.legend dt { color: var(--muted); }
.log { display: grid; gap: 0.25rem; max-block-size: 22rem; overflow: auto; }
.log li { display: flex; flex-wrap: wrap; gap: 0 0.625rem; }
.log time { color: var(--muted); font-size: 0.8125rem; flex: none; }
.log .message { flex: 1 1 14rem; white-space: pre-line; overflow-wrap: anywhere; min-inline-size: 0; }
.level-warn .strong { color: var(--warn); } .level-error .strong { color: var(--danger); }

dialog { inline-size: min(32rem, calc(100vw - 2rem)); max-block-size: calc(100vh - 2rem); padding: 1.5rem; color: var(--fg); background: var(--surface); border: 1px solid var(--border); border-radius: calc(var(--radius) * 1.3); box-shadow: 0 16px 48px #0005; }
dialog::backdrop { background: #0a0c1080; }
dialog h3 { font-size: 1.125rem; margin-block-end: 0.75rem; }
dialog h4 { margin-block: 0.875rem 0.375rem; color: var(--muted); }

.outline { display: grid; gap: 0.875rem; }
.outline div { block-size: 4.5rem; border-radius: var(--radius); background: linear-gradient(100deg, var(--border) 40%, color-mix(in srgb, var(--border) 55%, var(--bg)) 50%, var(--border) 60%) 0 0 / 300% 100%; opacity: 0.55; animation: pass 1.6s linear infinite; }
.outline div:first-child { block-size: 2rem; inline-size: 40%; }
@keyframes pass { from { background-position: 100% 0; } to { background-position: 0 0; } }

@container (max-width: 46rem) {
  .columns { grid-template-columns: minmax(0, 1fr); }
  table, tbody, tr, td { display: block; }
  thead { display: none; }
  table { background: none; border: 0; box-shadow: none; }
  tbody > tr { background: var(--surface); border: 1px solid var(--border); border-radius: var(--radius); padding: 0.75rem; margin-block-end: 0.625rem; }
  tbody > .detail-row { margin-block-start: -1.25rem; border-block-start: 0; border-start-start-radius: 0; border-start-end-radius: 0; }
  td, :is(th, td):first-child { border: 0; padding: 0.1875rem 0; max-inline-size: none; }
  td[data-label]:not(.c-status) { display: grid; grid-template-columns: 6.5rem 1fr; }
  td[data-label]:not(.c-status)::before { content: attr(data-label); color: var(--muted); grid-row: span 3; }
  .c-actions { display: flex; justify-content: flex-start; margin-block-start: 0.5rem; }
  .detail-body { padding: 0.75rem; }
}
@container (max-width: 28rem) {
  .summary-list > div { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .list li { flex-wrap: wrap; }
  .list .linked .i-more { display: none; }
  .box { padding: var(--space); }
  .row { flex-wrap: wrap; }
}
@media (prefers-reduced-motion: reduce) { *, ::before, ::after { animation: none !important; transition: none !important; } }
@media (forced-colors: active) { .badge, .panel, .chip[aria-pressed="true"] { border: 1px solid; } }
`;
let shared;

/** One sheet for all elements of the page. */
export function sheet() {
  if (!shared) {
    shared = new CSSStyleSheet();
    shared.replaceSync(CSS);
  }
  return shared;
}
