// Starts a deck and makes every slide fit, in this order: pictures go beside the words and shrink a little, long code folds
// into a line that opens on a click or on C, type gets a little smaller (code never below 18 px), pictures shrink more.
(function () {
  "use strict";
  var HEIGHT = 720, WIDTH = 1280;

  function overflows(slide) {
    return slide.scrollHeight > HEIGHT + 1 || slide.scrollWidth > WIDTH + 1 || wideFormula(slide);
  }

  function wideFormula(slide) {
    return Array.prototype.some.call(slide.querySelectorAll("mjx-container"), function (formula) {
      var svg = formula.querySelector("svg");
      return svg && svg.getBoundingClientRect().width > formula.parentElement.getBoundingClientRect().width + 1;
    });
  }

  function pictured(slide) {
    return Array.prototype.filter.call(slide.querySelectorAll(".jp-OutputArea-child"), function (output) {
      return output.querySelector("img");
    });
  }

  // Outputs that hold pictures move into a right column, with the sentence that belongs to each.
  function beside(slide) {
    var outputs = pictured(slide);
    if (!outputs.length) { return; }
    var columns = document.createElement("div"), left = document.createElement("div"), right = document.createElement("div");
    columns.className = "columns";
    var heading = slide.querySelector(".jp-MarkdownCell h1, .jp-MarkdownCell h2");
    Array.prototype.slice.call(slide.childNodes).forEach(function (node) {
      if (!(node.classList && node.classList.contains("notes"))) { left.appendChild(node); }
    });
    outputs.forEach(function (output) {
      var place = document.createElement("div"), fragment = output.closest(".fragment");
      right.appendChild(place);
      if (fragment) {
        place.className = "fragment";
        place.dataset.fragmentIndex = fragment.dataset.fragmentIndex;
      }
      var next = output.nextElementSibling;
      place.appendChild(output);
      if (next && next.querySelector(".jp-RenderedMarkdown")) { place.appendChild(next); }
    });
    columns.appendChild(left);
    columns.appendChild(right);
    slide.insertBefore(columns, slide.firstChild);
    if (heading) { slide.insertBefore(heading, columns); }
    slide.classList.add("beside");
    if (!left.textContent.trim()) {
      left.remove();
      columns.style.gridTemplateColumns = "1fr";
      if (outputs.length < 4) { right.className = "row"; }
    }
  }

  function visibleCode(slide) {
    return Array.prototype.filter.call(slide.querySelectorAll(".jp-Cell-inputWrapper .highlight"), function (code) {
      return !code.closest(".folded-code");
    });
  }

  function lines(code) { return code.textContent.trimEnd().split("\n").length; }

  function foldLongest(slide) {
    var code = visibleCode(slide).filter(function (c) { return lines(c) > 6; }).sort(function (a, b) { return lines(b) - lines(a); })[0];
    if (!code) { return false; }
    var fold = document.createElement("details"), summary = document.createElement("summary");
    fold.className = "folded-code";
    summary.textContent = "the code, " + lines(code) + " lines (C)";
    code.parentNode.insertBefore(fold, code);
    fold.appendChild(summary);
    fold.appendChild(code);
    return true;
  }

  function show(slide, shown) {
    slide.style.setProperty("--shown", shown.toFixed(2));
    slide.querySelectorAll(".course-frames").forEach(function (card) { card.style.zoom = shown.toFixed(2); });
  }

  // The widest room for pictures that the words allow, then smaller pictures down to `least`.
  function arrange(slide, least) {
    var shares = slide.classList.contains("beside") ? (visibleCode(slide).length ? [1.28, 1.5, 1.9] : [0.8, 1, 1.28, 1.6]) : [1];
    for (var shown = 1; shown >= least - 0.001; shown -= 0.08) {
      show(slide, shown);
      for (var i = 0; i < shares.length; i++) {
        slide.style.setProperty("--words", shares[i] + "fr");
        if (!overflows(slide)) { return true; }
      }
    }
    return false;
  }

  function fit(slide) {
    if (!overflows(slide)) { return true; }
    beside(slide);
    if (arrange(slide, 0.76)) { return true; }
    slide.classList.add("tight");
    if (arrange(slide, 0.76)) { return true; }
    slide.classList.remove("tight");
    while (foldLongest(slide)) {
      if (arrange(slide, 0.68)) { return true; }
    }
    slide.classList.add("dense", "tight");
    return arrange(slide, 0.4);
  }

  function leaves() {
    return Array.prototype.filter.call(document.querySelectorAll(".reveal .slides section"), function (section) {
      return !section.querySelector("section");
    });
  }

  // Each slide is laid out alone, at full size, before reveal.js takes over.
  function fitAll() {
    var slides = document.querySelector(".reveal .slides");
    slides.style.width = WIDTH + "px";
    document.body.classList.add("measuring");
    leaves().forEach(function (slide) {
      slide.style.display = "block";
      slide.dataset.fits = String(fit(slide));
      slide.style.display = "";
    });
    document.body.classList.remove("measuring");
    slides.style.width = "";
  }

  function toggleCode() {
    var folds = Reveal.getCurrentSlide().querySelectorAll(".folded-code");
    var next = Array.prototype.findIndex.call(folds, function (f) { return f.open; }) + 1;
    folds.forEach(function (f, i) { f.open = i === next && next < folds.length; });
  }

  var title = document.createElement("div");
  title.className = "running-title";
  title.textContent = document.querySelector(".reveal").dataset.runningTitle;
  document.querySelector(".reveal").appendChild(title);

  Reveal.initialize({
    width: WIDTH, height: HEIGHT, margin: 0, center: false, hash: true, transition: "none", slideNumber: "c/t",
    keyboard: {67: toggleCode}, controls: true, progress: true, viewDistance: 1000, plugins: [RevealNotes]
  }).then(function () {
    return window.MathJax.startup.promise;
  }).then(function () {
    fitAll();
    Reveal.sync();
    Reveal.layout();
    document.documentElement.dataset.deck = "ready";
  });
})();
