/* loopkit: what people say of an answer, and what they do with it. No dependency; see docs/browser.md. */
(function (root) {
  "use strict";
  var LONGEST = 4000, MOST = 60000, DELAY = 2000, waiting = [];
  var script = document.currentScript;
  var home = script ? script.src.replace(/\/loopkit\.js.*$/, "") : "";

  function id() {
    return root.crypto && crypto.randomUUID ? crypto.randomUUID() : Date.now() + "-" + Math.random().toString(36).slice(2);
  }
  function quiet() {
    return navigator.doNotTrack === "1" || root.doNotTrack === "1" || navigator.globalPrivacyControl === true;
  }
  /* Text plain: so that no preflight is asked for. */
  function post(url, body, keepalive) {
    return fetch(url, { method: "POST", body: body, keepalive: keepalive !== false, credentials: "omit",
      headers: { "content-type": "text/plain" } });
  }
  function flush() {
    var byUrl = {};
    waiting.splice(0).forEach(function (e) { if (e.ok()) (byUrl[e.url] = byUrl[e.url] || []).push(JSON.stringify(e.event)); });
    Object.keys(byUrl).forEach(function (url) {
      while (byUrl[url].length) {
        var events = [], size = 0, length;
        while (byUrl[url].length && events.length < 50 && size + (length = bytes(byUrl[url][0])) < MOST) {
          size += length + 1; events.push(byUrl[url].shift());
        }
        var body = "[" + (events.length ? events : byUrl[url].splice(0, 1)).join(",") + "]";
        if (!(navigator.sendBeacon && navigator.sendBeacon(url + "/f/batch", body)))
          post(url + "/f/batch", body, false).catch(function () {});  /* a page that stays has no bound */
      }
    });
  }
  function bytes(text) { return new TextEncoder().encode(text).length; }
  /* Indel similarity, 0 to 1, as the library has it: twice what both have in order, over both lengths. */
  function similarity(a, b) {
    a = plain(a); b = plain(b);
    var all = a.length + b.length, same = 0, end = 0, row = [], i, j, last, kept;
    if (!all) return 1;
    while (same < a.length && same < b.length && a[same] === b[same]) same++;
    while (end < a.length - same && end < b.length - same && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    a = a.slice(same, a.length - end); b = b.slice(same, b.length - end);
    if (a.length * b.length > 4e6) return 2 * (same + end) / all;
    for (j = 0; j <= b.length; j++) row[j] = 0;
    for (i = 0; i < a.length; i++)
      for (last = 0, j = 1; j <= b.length; j++) {
        kept = row[j];
        row[j] = a[i] === b[j - 1] ? last + 1 : Math.max(kept, row[j - 1]);
        last = kept;
      }
    return 2 * (same + end + row[b.length]) / all;
  }
  function plain(text) { return Array.from(text.normalize("NFKC").trim().replace(/\s+/g, " ")); }

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
      var e = JSON.stringify(event(name, value, more));
      return post(url + "/f", e).catch(function () { return post(url + "/f", e); })
        .then(function (r) { mark(r.ok ? "sent" : "failed"); return r.ok; }, function () { mark("failed"); return false; });
    }
    /* Shown by what is done: by and by. */
    function note(name, value, more) {
      if (!allowed(true)) return;
      waiting.push({ url: url, event: event(name, value, more), ok: function () { return allowed(true); } });
      clearTimeout(timer);
      timer = setTimeout(flush, DELAY);
    }
    function mark(state) { element.setAttribute("data-loopkit-state", state); }
    function on(target, type, handler) {
      target.addEventListener(type, handler);
      undo.push(function () { target.removeEventListener(type, handler); });
    }
    function at(e, name) { return e.target.closest && e.target.closest("[data-loopkit-" + name + "]"); }

    /* Of elements in each other the innermost tells. */
    function first(e) { return !e.loopkit && (e.loopkit = true); }
    on(element, "click", function (e) {
      var hit;
      if (!first(e)) return;
      if ((hit = at(e, "thumb"))) send("thumbs", hit.getAttribute("data-loopkit-thumb") === "up");
      else if ((hit = at(e, "stars"))) send("stars", +hit.getAttribute("data-loopkit-stars"));
      else if (at(e, "regenerate")) note("regenerated", true);
      else if (at(e, "stop")) note("stopped", true);
    });
    on(element, "submit", function (e) {
      var form = at(e, "comment"), field = form && form.querySelector("textarea,input");
      if (!form || !first(e)) return;
      e.preventDefault();
      if (field && field.value.trim()) send("comment", undefined, { c: field.value.slice(0, LONGEST) });
    });
    on(element, "copy", function (e) { if (!at(e, "comment") && first(e)) note("copied", true); });
    element.querySelectorAll("[data-loopkit-edit]").forEach(function (field) {
      var before = field.value;
      on(field, "change", function () {
        /* Half a text is no correction. */
        if (field.value !== before)
          note("edited", similarity(before, field.value), field.value.length > LONGEST ? {} : { x: field.value });
      });
    });
    var since = null, seen = 0, told = 0, inView = false;
    function look() {
      var visible = inView && !document.hidden;
      if (visible && since === null) since = Date.now();
      if (!visible && since !== null) { seen += Date.now() - since; since = null; }
    }
    var watcher = root.IntersectionObserver && new IntersectionObserver(function (entries) {
      inView = entries[entries.length - 1].isIntersecting; look();
    });
    if (watcher) { watcher.observe(element); undo.push(function () { watcher.disconnect(); }); }
    function leave() {
      var here = inView;
      inView = false; look(); inView = here;
      if (seen - told > 999) { told = seen; note("dwell", Math.round(seen / 1000)); }
      flush();
    }
    on(document, "visibilitychange", function () { if (document.hidden) leave(); else look(); });
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
