// What arithmatex has marked; nothing else on a page is taken for a formula.
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    renderMathInElement(element, { throwOnError: false });
  }
});
