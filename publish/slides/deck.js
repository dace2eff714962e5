// Starts a deck and makes every slide fit: pictures go beside the words, then shrink, before any type gets smaller.
(function () {
  "use strict";
  var HEIGHT = 720, WIDTH = 1280;

  function overflows(slide) {
    return slide.scrollHeight > HEIGHT + 1 || slide.scrollWidth > WIDTH + 1;
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
      var place = right, fragment = output.closest(".fragment");
      if (fragment) {
        place = document.createElement("div");
        place.className = "fragment";
        place.dataset.fragmentIndex = fragment.dataset.fragmentIndex;
        right.appendChild(place);
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
    slide.classList.toggle("coded", Boolean(left.querySelector("pre")));
    if (!left.textContent.trim()) { columns.style.gridTemplateColumns = "1fr"; left.remove(); }
  }

  function shrinkPictures(slide) {
    for (var shown = 0.92; shown >= 0.5 && overflows(slide); shown -= 0.06) {
      slide.style.setProperty("--shown", shown.toFixed(2));
      slide.querySelectorAll(".course-frames").forEach(function (card) { card.style.zoom = shown.toFixed(2); });
    }
  }

  function fit(slide) {
    if (overflows(slide)) { beside(slide); }
    shrinkPictures(slide);
    if (overflows(slide)) { slide.classList.add("dense"); }
    slide.dataset.fits = String(!overflows(slide));
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
      fit(slide);
      slide.style.display = "";
    });
    document.body.classList.remove("measuring");
    slides.style.width = "";
  }

  var title = document.createElement("div");
  title.className = "running-title";
  title.textContent = document.querySelector(".reveal").dataset.runningTitle;
  document.querySelector(".reveal").appendChild(title);

  Reveal.initialize({
    width: WIDTH, height: HEIGHT, margin: 0, center: false, hash: true, transition: "none", slideNumber: "c/t",
    controls: true, progress: true, viewDistance: 1000, plugins: [RevealNotes]
  }).then(function () {
    return window.MathJax.startup.promise;
  }).then(function () {
    fitAll();
    Reveal.sync();
    Reveal.layout();
    document.documentElement.dataset.deck = "ready";
  });
})();
