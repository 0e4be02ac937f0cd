// Runs before the first paint, so that the page does not flash in the other mode.
const theme = localStorage.getItem("kinema.theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
