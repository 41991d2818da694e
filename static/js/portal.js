// The little that HTML cannot do: tell the server the reader's time zone, and say aloud what a swap changed.
"use strict";

(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const known = document.cookie.match(/(?:^|; )timezone=([^;]*)/);
  if (zone && (!known || decodeURIComponent(known[1]) !== zone)) {
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `timezone=${encodeURIComponent(zone)}; path=/; max-age=31536000; samesite=lax${secure}`;
    // The first page was rendered without it: show its times in the reader's zone, too.
    if (!known && document.querySelector("time[data-zone]")) location.reload();
  }

  // A part that replaces itself announces its news once, through the one live region of the page.
  document.addEventListener("htmx:afterSwap", (event) => {
    const news = event.target.querySelector?.("[data-announce]") ?? event.detail.elt?.querySelector?.("[data-announce]");
    const region = document.getElementById("announcements");
    if (news && region && region.textContent !== news.dataset.announce) region.textContent = news.dataset.announce;
  });

  // A part brings the drawings of its icons: those that the page has not got are added.
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    if (event.detail.target.id !== "drawings") return;
    for (const drawing of event.detail.fragment.querySelectorAll("symbol")) {
      if (document.getElementById(drawing.id)) drawing.remove();
    }
  });

  // A part that replaces itself keeps the focus: elements with an id by htmx itself, links by where they lead.
  let link = null;
  document.addEventListener("htmx:beforeSwap", (event) => {
    const active = document.activeElement;
    link = active && !active.id && event.detail.target.contains(active) ? active.getAttribute("href") : null;
  });
  document.addEventListener("htmx:afterSwap", () => {
    if (link && document.activeElement === document.body) document.querySelector(`a[href="${CSS.escape(link)}"]`)?.focus();
    link = null;
  });

  // A suggested KB goes into its list; the preview hears of it as if it had been typed. A toast goes when it is closed.
  document.addEventListener("click", (event) => {
    const { append, to } = event.target.dataset ?? {};
    const list = append && document.getElementById(to);
    if (list && !list.value.split(/[\s,;]+/).includes(append)) {
      list.value = `${list.value.trim()} ${append}`.trim();
      list.dispatchEvent(new Event("input", { bubbles: true }));
    }
    event.target.closest?.("[data-dismiss]")?.closest(".toast").remove();
    for (const menu of document.querySelectorAll("details.overflow[open]")) menu.open = menu.contains(event.target);
  });

  // `?` shows the shortcuts; `g` and a key goes to what carries that key. Never while somebody types.
  let prefix = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest?.("input, textarea, select")) return;
    const target = prefix && document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (event.key === "?") document.getElementById("shortcuts")?.togglePopover();
    if (target) {
      event.preventDefault();
      target.focus();
      if (target.matches(".keys a")) target.click();
    }
    prefix = event.key === "g";
  });

  // One click is enough: a form that has been sent cannot be sent again until the page comes back.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
  });
  // The box in the head of a list ticks the page.
  document.addEventListener("change", (event) => {
    const name = event.target.dataset?.checkAll;
    if (!name) return;
    for (const box of document.querySelectorAll(`input[name="${name}"]:enabled`)) box.checked = event.target.checked;
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
})();
