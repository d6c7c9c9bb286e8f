// Dark or light: as the system has it, until somebody says otherwise.

const KEY = "theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

export function applyTheme() {
  const chosen = localStorage.getItem(KEY);
  if (chosen) document.documentElement.dataset.theme = chosen;
}

export function turnTheme() {
  const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  localStorage.setItem(KEY, now === "dark" ? "light" : "dark");
  applyTheme();
}
