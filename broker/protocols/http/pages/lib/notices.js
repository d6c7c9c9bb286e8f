// What is said once: that something was done, or why it was not.

const SHOWN_MS = 8000;
let timer;

function say(id, text) {
  for (const each of ["done", "failed"]) {
    document.getElementById(each).textContent = each === id ? text : "";
  }
  clearTimeout(timer);
  if (id === "done") timer = setTimeout(silence, SHOWN_MS);
}

export const succeeded = (text) => say("done", text);
export const failed = (error) => say("failed", error.message ?? String(error));
export const silence = () => say("", "");
