(() => {
  "use strict";
  const root = document.documentElement;

  const theme = document.getElementById("theme-switch");
  const darkByDefault = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (darkByDefault.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `Show in ${isDark() ? "light" : "dark"} colours`); };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  darkByDefault.addEventListener("change", nameTheme);
  nameTheme();
  theme.hidden = false;

  const votes = document.getElementById("votes-switch");
  if (votes) {
    votes.addEventListener("click", () => {
      const shown = root.dataset.votes !== "off";
      root.dataset.votes = shown ? "off" : "on";
      votes.setAttribute("aria-pressed", String(!shown));
    });
    votes.hidden = false;
  }

  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const compare = (one, other, sign) => {
    const [a, b] = [one, other].map((cell) => cell.dataset.sort);
    if (a !== undefined && b !== undefined) return sign * (Number(a) - Number(b));
    const [s, t] = [one, other].map((cell) => cell.textContent.trim());
    if (!s || !t) return (s ? 0 : 1) - (t ? 0 : 1);
    return sign * words.compare(s, t);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const first = head.classList.contains("num") ? "descending" : "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        const order = before === first ? second : first;
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], sign));
        body.append(...rows);
      });
    });
  }

  for (const field of document.querySelectorAll("[data-searches]")) {
    const body = document.getElementById(field.dataset.searches).tBodies[0];
    const found = field.parentElement.querySelector(".found");
    const texts = new Map([...body.rows].map((row) => [row, row.textContent.toLowerCase()]));
    const search = () => {
      const wanted = field.value.trim().toLowerCase();
      let number = 0;
      for (const [row, text] of texts) {
        row.hidden = !text.includes(wanted);
        number += row.hidden ? 0 : 1;
      }
      found.textContent = wanted ? `${number} of ${texts.size}` : "";
    };
    field.addEventListener("input", search);
    field.parentElement.hidden = false;
  }

  const links = new Map([...document.querySelectorAll(".toc a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver((changes) => {
    for (const change of changes) seen[change.isIntersecting ? "add" : "delete"](change.target.id);
    const current = [...links.keys()].find((id) => seen.has(id));
    for (const [id, link] of links) {
      if (id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-15% 0px -60% 0px" });
  for (const id of links.keys()) watch.observe(document.getElementById(id));

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const part of closed) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of closed) part.open = false; });
})();
