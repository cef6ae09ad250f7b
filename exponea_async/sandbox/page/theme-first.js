// Runs before the first paint, so that the page does not flash in the other theme. Not a module: modules run later.
(function () {
  try {
    const theme = localStorage.getItem("sandbox-theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is disabled: the theme of the system applies.
  }
})();
