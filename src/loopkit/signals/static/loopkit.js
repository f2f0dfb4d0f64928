/* loopkit: what people say of an answer, and what they do with it. No dependency; see docs/browser.md. */
(function (root) {
  "use strict";
  var LIMIT = 2000, DELAY = 2000, waiting = [];
  var script = document.currentScript;
  var home = script ? script.src.replace(/\/loopkit\.js.*$/, "") : "";

  function id() {
    return root.crypto && crypto.randomUUID ? crypto.randomUUID() : Date.now() + "-" + Math.random().toString(36).slice(2);
  }
  function quiet() {
    return navigator.doNotTrack === "1" || root.doNotTrack === "1" || navigator.globalPrivacyControl === true;
  }
  /* Text plain: so that no preflight is asked for. */
  function post(url, body) {
    return fetch(url, { method: "POST", body: JSON.stringify(body), keepalive: true, credentials: "omit",
      headers: { "content-type": "text/plain" } });
  }
  function flush() {
    var byUrl = {};
    waiting.splice(0).forEach(function (e) { (byUrl[e.url] = byUrl[e.url] || []).push(e.event); });
    Object.keys(byUrl).forEach(function (url) {
      for (var events; (events = byUrl[url].splice(0, 50)).length;)
        if (!(navigator.sendBeacon && navigator.sendBeacon(url + "/f/batch", JSON.stringify(events))))
          post(url + "/f/batch", events).catch(function () {});
    });
  }
  /* Levenshtein's similarity, 0 to 1, of texts up to LIMIT characters. */
  function similarity(a, b) {
    a = a.slice(0, LIMIT); b = b.slice(0, LIMIT);
    var most = Math.max(a.length, b.length), row = [], i, j, left, last;
    if (!most) return 1;
    for (j = 0; j <= b.length; j++) row[j] = j;
    for (i = 1; i <= a.length; i++) {
      last = row[0]; row[0] = i;
      for (j = 1; j <= b.length; j++) {
        left = row[j];
        row[j] = Math.min(left + 1, row[j - 1] + 1, last + (a[i - 1] === b[j - 1] ? 0 : 1));
        last = left;
      }
    }
    return 1 - row[b.length] / most;
  }

  function track(element, token, options) {
    options = options || {};
    var url = (options.url || element.getAttribute("data-loopkit-url") || home).replace(/\/$/, "");
    var undo = [], timer = null;
    function allowed(implicit) {
      var consent = "consent" in options ? options.consent : root.loopkit.consent;
      return !!token && consent !== false && !(implicit && (quiet() || consent === undefined && options.ask));
    }
    function event(name, value, more) {
      return Object.assign({ t: token, n: name, v: value, id: id() }, more);
    }
    /* Said outright: at once. */
    function send(name, value, more) {
      if (!allowed(false)) return Promise.resolve(false);
      var e = event(name, value, more);
      return post(url + "/f", e).catch(function () { return post(url + "/f", e); })
        .then(function (r) { mark(r.ok ? "sent" : "failed"); return r.ok; }, function () { mark("failed"); return false; });
    }
    /* Shown by what is done: by and by. */
    function note(name, value, more) {
      if (!allowed(true)) return;
      waiting.push({ url: url, event: event(name, value, more) });
      clearTimeout(timer);
      timer = setTimeout(flush, DELAY);
    }
    function mark(state) { element.setAttribute("data-loopkit-state", state); }
    function on(target, type, handler) {
      target.addEventListener(type, handler);
      undo.push(function () { target.removeEventListener(type, handler); });
    }
    function at(e, name) { return e.target.closest && e.target.closest("[data-loopkit-" + name + "]"); }

    on(element, "click", function (e) {
      var hit;
      if ((hit = at(e, "thumb"))) send("thumbs", hit.getAttribute("data-loopkit-thumb") === "up");
      else if ((hit = at(e, "stars"))) send("stars", +hit.getAttribute("data-loopkit-stars"));
      else if (at(e, "regenerate")) note("regenerated", true);
      else if (at(e, "stop")) note("stopped", true);
    });
    on(element, "submit", function (e) {
      var form = at(e, "comment"), field = form && form.querySelector("textarea,input");
      if (!form) return;
      e.preventDefault();
      if (field && field.value.trim()) send("comment", undefined, { c: field.value.slice(0, 4000) });
    });
    on(element, "copy", function () { note("copied", true); });
    element.querySelectorAll("[data-loopkit-edit]").forEach(function (field) {
      var before = field.value;
      on(field, "change", function () {
        if (field.value !== before) note("edited", similarity(before, field.value), { x: field.value.slice(0, 4000) });
      });
    });
    var since = null, seen = 0, told = false;
    function look(visible) {
      if (visible && since === null) since = Date.now();
      if (!visible && since !== null) { seen += Date.now() - since; since = null; }
    }
    var watcher = root.IntersectionObserver && new IntersectionObserver(function (entries) {
      look(entries[entries.length - 1].isIntersecting && !document.hidden);
    });
    if (watcher) { watcher.observe(element); undo.push(function () { watcher.disconnect(); }); }
    function leave() {
      look(false);
      if (!told && seen > 999) { told = true; note("dwell", Math.round(seen / 1000)); }
      flush();
    }
    on(document, "visibilitychange", function () { if (document.hidden) leave(); });
    on(root, "pagehide", leave);
    return { send: send, note: note, stop: function () { leave(); undo.forEach(function (f) { f(); }); } };
  }

  function start() {
    document.querySelectorAll("[data-loopkit]").forEach(function (element) {
      if (!element.loopkit) element.loopkit = track(element, element.getAttribute("data-loopkit"));
    });
  }
  root.loopkit = Object.assign({ consent: undefined }, root.loopkit, { track: track, start: start, flush: flush, similarity: similarity });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})(window);
