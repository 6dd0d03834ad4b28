"""The page's style and script, as constants, so that the one binary needs no data file.

The policy of the page (``page.CONTENT_POLICY``) allows exactly these two texts, by their hash, and nothing else.
The script adds only life: without it the page is the same picture, and a reload brings the next one.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6675; --line: #e1e5ea;
  --accent: #1f5fbf; --good: #11743c; --good-back: #ddf3e4; --bad: #b3261e; --bad-back: #fbe1df; --wait: #8a5a00;
  --wait-back: #fcefcf; --rest: #545f6d; --rest-back: #e9ecf0;
  --mono: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
@media (prefers-color-scheme: dark) { :root { --paper: #11151b; --card: #1a2028; --ink: #e4e8ee; --soft: #9aa6b5;
  --line: #2b333e; --accent: #82b1ff; --good: #7fdca2; --good-back: #16351f; --bad: #ff9c94; --bad-back: #44191a;
  --wait: #f2c568; --wait-back: #3c2f10; --rest: #aab4c1; --rest-back: #29313b; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
.skip { position: absolute; left: -999px; }
.skip:focus { left: 8px; top: 8px; background: var(--card); padding: 6px 10px; z-index: 9; }
header, main { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 14px; padding-top: 24px; padding-bottom: 4px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0; }
.soft { color: var(--soft); font-weight: 400; }
#live { margin-left: auto; font-size: 13px; color: var(--soft); }
#live::before { content: ""; display: inline-block; width: 8px; height: 8px; border-radius: 50%; margin-right: 6px;
  background: var(--rest); }
#live.on::before { background: var(--good); }
#live.off::before { background: var(--bad); }
.banner { border-radius: 10px; padding: 12px 16px; margin: 14px 0; font-weight: 600; }
.banner ul { margin: 4px 0 0; padding-left: 20px; font-weight: 400; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 14px 0; overflow: hidden; }
.card > h2, .card > .empty { padding: 12px 16px; }
.graph > div { overflow-x: auto; padding: 8px 16px; }
.card > h2 { border-bottom: 1px solid var(--line); }
.card > .empty { margin: 0; color: var(--soft); }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-size: 12px; font-weight: 600; color: var(--soft); padding: 8px 8px 4px; }
td { padding: 8px; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
tbody tr:first-child td { border-top: 0; }
th:first-child, td:first-child { padding-left: 16px; }
th:last-child, td:last-child { padding-right: 16px; }
td.number { font-variant-numeric: tabular-nums; }
td small, dd small { display: block; color: var(--soft); font-size: 13px; font-weight: 400; }
.name { font-weight: 600; }
.chip { display: inline-block; border-radius: 999px; padding: 1px 10px; font-size: 13px; font-weight: 600;
  white-space: nowrap; }
.good { background: var(--good-back); color: var(--good); }
.bad { background: var(--bad-back); color: var(--bad); }
.wait { background: var(--wait-back); color: var(--wait); }
.rest { background: var(--rest-back); color: var(--rest); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; margin: 14px 0; }
.pair > .card { margin: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 16px; margin: 0; padding: 12px 16px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.findings { margin: 0; padding: 10px 16px 10px 34px; font: 13px/1.6 var(--mono); overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 13px; padding: 6px 0 28px; display: flex; flex-wrap: wrap; gap: 4px 16px; }
#log { position: fixed; inset: auto 0 0 0; max-height: 55vh; display: flex; flex-direction: column; background: #12161c;
  color: #dde3ea; border-top: 1px solid #333c47; box-shadow: 0 -8px 30px rgb(0 0 0 / .3); z-index: 5; }
#log[hidden] { display: none; }
#log h2 { display: flex; align-items: center; gap: 10px; padding: 8px 16px; border-bottom: 1px solid #2b333e;
  color: #fff; }
#log h2 span { font-weight: 400; color: #9aa6b5; font-size: 13px; }
#log button { margin-left: auto; font: inherit; font-size: 13px; color: #fff; background: #2b333e; border: 0;
  border-radius: 6px; padding: 6px 14px; cursor: pointer; }
#log pre { margin: 0; padding: 10px 16px; overflow: auto; font: 12.5px/1.55 var(--mono); white-space: pre-wrap;
  overflow-wrap: anywhere; min-height: 8em; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 720px) {
  header, main { padding-left: 12px; padding-right: 12px; }
  header { padding-top: 14px; }
  .pair { grid-template-columns: 1fr; }
  table, tbody, tr, td { display: block; width: 100%; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { padding: 10px 16px; border-top: 1px solid var(--line); position: relative; }
  tbody tr:first-child { border-top: 0; }
  td, td:first-child, td:last-child { border: 0; padding: 1px 0; }
  td[data-label]:not(.name) { display: grid; grid-template-columns: 6.5em 1fr; gap: 8px; }
  td[data-label]:not(.name)::before { content: attr(data-label); color: var(--soft); font-size: 13px; }
  td.name { font-size: 16px; padding-bottom: 4px; }
  td.none, td.zero { display: none !important; }
  td.log:not(.name) { display: block; position: absolute; top: 4px; right: 6px; width: auto; }
  td.log:not(.name)::before { display: none; }
  td.log a { display: block; padding: 8px 10px; }
}
@media (prefers-reduced-motion: no-preference) { .changed .chip { animation: changed 1.2s; } }
@keyframes changed { from { box-shadow: 0 0 0 4px var(--accent); } to { box-shadow: 0 0 0 0 transparent; } }
"""

SCRIPT = """
'use strict';
(function () {
  var main = document.getElementById('picture'), live = document.getElementById('live');
  var said = document.getElementById('said'), panel = document.getElementById('log');
  var text = panel.querySelector('pre'), title = panel.querySelector('b');
  var events = null, due = 0, asking = false, again = false, reading = null, opener = '', over = false;
  var LINES = 2000;

  function show(kind, words) { live.className = kind; live.textContent = words; }

  function states() {
    var found = {};
    main.querySelectorAll('tr[data-key]').forEach(function (row) { found[row.dataset.key] = row.dataset.state; });
    return found;
  }

  function ages() {
    var now = Date.now();
    document.querySelectorAll('time[datetime]').forEach(function (it) {
      var s = Math.max(0, Math.round((now - Date.parse(it.dateTime)) / 1000));
      var m = Math.floor(s / 60), h = Math.floor(m / 60);
      it.textContent = s < 10 ? 'just now' : s < 60 ? Math.floor(s / 10) * 10 + ' s ago' : h < 1 ? m + ' min ago' :
        h < 48 ? h + ' h ago' : Math.floor(h / 24) + ' days ago';
      it.title = new Date(it.dateTime).toLocaleString();
    });
  }

  function refresh() {
    if (asking) { again = true; return; }
    asking = true; again = false;
    fetch('/?part=picture', { headers: { Accept: 'text/html' } }).then(function (answer) {
      if (!answer.ok) { throw new Error(answer.status); }
      return answer.text();
    }).then(function (html) {
      var before = states(), focus = document.activeElement && document.activeElement.id, told = [];
      main.innerHTML = html;
      main.querySelectorAll('tr[data-key]').forEach(function (row) {
        var key = row.dataset.key;
        if (before[key] === row.dataset.state) { return; }
        row.classList.add('changed');
        told.push(key + ' is ' + row.dataset.state);
      });
      if (told.length) { said.textContent = told.slice(0, 5).join(', '); }
      if (focus && main.querySelector('#' + CSS.escape(focus))) { document.getElementById(focus).focus(); }
      ages();
    }).catch(function () { show('off', 'connection lost'); }).finally(function () {
      asking = false;
      if (again) { soon(); }
    });
  }

  function soon() { if (!due) { due = setTimeout(function () { due = 0; refresh(); }, 80); } }

  function listen() {
    if (events) { return; }
    events = new EventSource('/v1/events');
    events.addEventListener('hello', function () { show('on', 'live'); soon(); resume(); });
    ['service', 'unit', 'update', 'settings', 'store', 'lost'].forEach(function (kind) {
      events.addEventListener(kind, soon);
    });
    events.onerror = function () {
      show('off', 'connection lost, trying again');
      if (events.readyState === 2) {
        events = null;
        setTimeout(function () { if (!document.hidden) { listen(); } }, 3000);
      }
    };
  }

  function quiet() { if (events) { events.close(); events = null; show('', 'paused'); } }

  function close() {
    if (reading) { reading.abort(); reading = null; }
    panel.hidden = true; document.body.style.paddingBottom = '';
    var back = document.getElementById(opener);
    if (back) { back.focus(); }
  }

  function resume() {  // the node was away, and is back
    var link = document.getElementById(opener), top = document.activeElement;
    if (link && over && !panel.hidden) { open(link); top.focus(); }
  }

  function open(link) {
    if (reading) { reading.abort(); }
    over = false;
    var mine = reading = new AbortController(), decoder = new TextDecoder(), rest = '';
    opener = link.id; title.textContent = link.dataset.unit; text.textContent = ''; panel.hidden = false;
    document.body.style.paddingBottom = '55vh';
    panel.querySelector('button').focus();
    fetch(link.getAttribute('href') + '&follow=1', { headers: { Accept: 'text/plain' }, signal: mine.signal })
      .then(function (answer) {
        if (!answer.ok) { throw new Error('the node answered ' + answer.status); }
        var reader = answer.body.getReader();
        function next() {
          return reader.read().then(function (piece) {
            if (piece.done || mine !== reading) { return; }
            rest += decoder.decode(piece.value, { stream: true });
            var lines = rest.split('\\n'), down = text.scrollHeight - text.scrollTop - text.clientHeight < 30;
            rest = lines.pop();
            if (lines.length) { text.append(lines.join('\\n') + '\\n'); }
            while (text.childNodes.length > LINES) { text.firstChild.remove(); }
            if (down) { text.scrollTop = text.scrollHeight; }
            return next();
          });
        }
        return next();
      })
      .then(function () { if (mine === reading) { over = true; text.append('(the log ended)\\n'); } })
      .catch(function (error) { if (mine === reading) { over = true; text.append('(' + error.message + ')\\n'); } });
  }

  main.addEventListener('click', function (event) {
    var link = event.target.closest('a[data-unit]');
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); open(link); }
  });
  panel.querySelector('button').addEventListener('click', close);
  document.addEventListener('keydown', function (event) { if (event.key === 'Escape' && !panel.hidden) { close(); } });
  document.addEventListener('visibilitychange', function () { if (document.hidden) { quiet(); } else { listen(); } });
  setInterval(function () { if (!document.hidden) { ages(); } }, 10000);
  ages();
  if (!document.hidden) { listen(); }
})();
"""
