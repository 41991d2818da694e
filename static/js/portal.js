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
    for (const box of document.querySelectorAll(`input[name="${name}"]`)) box.checked = event.target.checked;
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
})();
