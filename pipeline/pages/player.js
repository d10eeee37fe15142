// Plays the stored frames and crops in step with the sound, and draws the strips of a card.
//
// One clock: the audio element's time where there is sound, the computer's where there is none.
// Time 0 is the sample's t0; the picture at time s is that of interval floor(s * fps).
"use strict";

(() => {
  const LANDMARK_UNITS = 16;
  const NO_LANDMARK = -32768;
  const POINTS = 68;
  // Parts of a face in the order of the 68 points of iBUG 300-W: [first, last, closed].
  const PARTS = [[0, 16, false], [17, 21, false], [22, 26, false], [27, 30, false], [31, 35, false],
    [36, 41, true], [42, 47, true], [48, 59, true], [60, 67, true]];
  const MOUTH_FROM = 48;
  const TRACK_COLOURS = ["#5fd3a4", "#8fb8ff"];
  const FOLLOWED_COLOUR = "#e6b455";
  const STAGE_HEIGHT = 318;
  const STAGE_WIDTH = 566;
  const CROP_SIDE = 154;
  const TILE_GAP = 1;

  const players = [];
  let active = null;

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // The pictures of a blob, one a frame, null where there is none.
  function picturesOf(stored, redraw) {
    const bytes = bytesOf(stored.blob);
    let start = 0;
    return stored.sizes.map((size) => {
      if (!size) return null;
      const image = new Image();
      image.onload = redraw;
      image.src = URL.createObjectURL(
        new Blob([bytes.subarray(start, start + size)], {type: "image/jpeg"}));
      start += size;
      return image;
    });
  }

  function fitCanvas(canvas, width, height) {
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.imageSmoothingQuality = "high";
    return context;
  }

  class Player {
    constructor(card) {
      this.card = card;
      this.data = JSON.parse(card.querySelector("script.player").textContent);
      this.seconds = this.data.frames / this.data.fps;
      this.position = 0;
      this.playing = false;
      this.shown = -1;
      this.timed = [...card.querySelectorAll(".span[data-start]")];
      this.listen();
    }

    // Pictures and sound are unpacked when the card comes near the window.
    start() {
      if (this.pictures) return;
      this.pictures = {};
      for (const [name, stored] of Object.entries(this.data.pictures)) {
        this.pictures[name] = picturesOf(stored, () => this.soon());
        stored.blob = null;
      }
      this.landmarks = this.data.tracks.map((track) =>
        track.landmarks ? new Int16Array(bytesOf(track.landmarks).buffer) : null);
      if (this.data.sound) {
        this.audio = new Audio(URL.createObjectURL(
          new Blob([bytesOf(this.data.sound)], {type: "audio/ogg"})));
        this.audio.preload = "auto";
        this.audio.onended = () => this.pause();
        this.data.sound = null;
      }
      this.soon();
    }

    listen() {
      const on = (selector, event, act) => {
        const element = this.card.querySelector(selector);
        if (element) element.addEventListener(event, act);
      };
      this.card.addEventListener("pointerdown", () => activate(this));
      this.card.addEventListener("focusin", () => activate(this));
      on(".play", "click", () => this.toggle());
      on(".overlay", "change", () => this.soon());
      on(".speed", "change", () => this.setSpeed());
      const lanes = this.card.querySelector(".lanes");
      const seek = (event) => {
        const box = this.card.querySelector(".axis").getBoundingClientRect();
        this.seek((event.clientX - box.left) / box.width * this.seconds);
      };
      lanes.addEventListener("pointerdown", (event) => {
        lanes.setPointerCapture(event.pointerId);
        seek(event);
      });
      lanes.addEventListener("pointermove", (event) => { if (event.buttons & 1) seek(event); });
      new ResizeObserver(() => this.soon()).observe(lanes);
    }

    // --- the clock ---

    get time() {
      if (this.playing && this.audio) return this.audio.currentTime;
      if (this.playing) return this.position + (performance.now() - this.since) / 1000 * this.speed;
      return this.position;
    }

    get frame() {
      return clamp(Math.floor(this.time * this.data.fps + 1e-6), 0, this.data.frames - 1);
    }

    get speed() { return Number(this.card.querySelector(".speed").value); }

    setSpeed() {
      const time = this.time;
      if (this.audio) this.audio.playbackRate = this.speed;
      this.position = time;
      this.since = performance.now();
    }

    play() {
      this.start();
      players.forEach((other) => { if (other !== this) other.pause(); });
      if (this.position >= this.seconds - 1e-3) this.position = 0;
      this.since = performance.now();
      this.playing = true;
      if (this.audio) {
        this.audio.currentTime = this.position;
        this.audio.playbackRate = this.speed;
        this.audio.play().catch(() => this.pause());
      }
      this.card.classList.add("playing");
      this.run();
    }

    pause() {
      if (!this.playing) return;
      this.position = Math.min(this.time, this.seconds);
      this.playing = false;
      if (this.audio) this.audio.pause();
      this.card.classList.remove("playing");
      this.draw();
    }

    toggle() { if (this.playing) this.pause(); else this.play(); }

    seek(time) {
      this.start();
      this.position = clamp(time, 0, this.seconds);
      this.since = performance.now();
      if (this.audio) this.audio.currentTime = this.position;
      this.soon();
    }

    // To the middle of a neighbouring interval, where rounding cannot show another one.
    step(frames) {
      this.pause();
      const frame = clamp(this.frame + frames, 0, this.data.frames - 1);
      this.seek((frame + 0.5) / this.data.fps);
    }

    run() {
      if (!this.playing) return;
      if (this.time >= this.seconds) this.pause();
      this.draw();
      requestAnimationFrame(() => this.run());
    }

    // --- drawing ---

    soon() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.drawStrips();
        this.shown = -1;
        this.draw();
      });
    }

    get overlay() {
      const box = this.card.querySelector(".overlay");
      return Boolean(box && box.checked);
    }

    draw() {
      if (!this.pictures) return;
      const time = Math.min(this.time, this.seconds), frame = this.frame;
      this.card.querySelector(".cursor").style.setProperty("--at", time / this.seconds);
      this.card.querySelector(".clock").textContent =
        `${time.toFixed(2)} / ${this.seconds.toFixed(2)} s`;
      const key = `${frame} ${this.overlay}`;
      if (key === this.shown) return;
      this.shown = key;
      this.drawText(frame, time);
      for (const canvas of this.card.querySelectorAll("[data-view]")) this.drawView(canvas, frame);
    }

    drawText(frame, time) {
      const {pts, tracks, frames} = this.data;
      const from = pts.length ? `, from ${pts[frame].toFixed(3)} s` : "";
      this.card.querySelector(".count").textContent = `frame ${frame + 1} of ${frames}${from}`;
      this.card.querySelector(".state").textContent =
        tracks.map((track) => `face ${track.states[frame]}`).join(", ");
      this.card.querySelector(".cell").setAttribute("transform", `translate(${frame} 0)`);
      for (const span of this.timed) {
        span.classList.toggle("on", span.dataset.start <= time && time < span.dataset.end);
      }
    }

    drawView(canvas, frame) {
      const name = canvas.dataset.view;
      const [width, height] = name === "frames" ? this.stageSize() : [CROP_SIDE, CROP_SIDE];
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      const context = fitCanvas(canvas, width, height);
      this.drawPicture(context, name, frame, 0, 0, width, height);
    }

    stageSize() {
      const [width, height] = this.data.size;
      const room = Math.min(STAGE_WIDTH, this.card.querySelector(".bench").clientWidth - 32);
      const scale = Math.min(room / width, STAGE_HEIGHT / height);
      return [width * scale, height * scale];
    }

    // One picture fills the box; what does not fit is cut at the edges.
    drawPicture(context, name, frame, left, top, width, height) {
      const image = (this.pictures[name] || [])[frame];
      context.save();
      context.beginPath();
      context.rect(left, top, width, height);
      context.clip();
      if (image && image.complete && image.naturalWidth) {
        const scale = Math.max(width / image.naturalWidth, height / image.naturalHeight);
        context.translate(left + (width - image.naturalWidth * scale) / 2,
          top + (height - image.naturalHeight * scale) / 2);
        context.drawImage(image, 0, 0, image.naturalWidth * scale, image.naturalHeight * scale);
        if (name === "frames" && this.overlay) this.drawFaces(context, frame, scale);
      } else if (!image) {
        drawNothing(context, left, top, width, height);
      }
      context.restore();
    }

    drawFaces(context, frame, scale) {
      this.data.tracks.forEach((track, number) => {
        const box = track.boxes[frame], state = track.states[frame];
        const fine = scale < 1;
        context.lineWidth = fine ? 1 : 1.5;
        if (box) {
          context.strokeStyle = state === "detected" ? TRACK_COLOURS[number] : FOLLOWED_COLOUR;
          context.setLineDash(state === "detected" ? [] : [5, 4]);
          const [x0, y0, x1, y1] = box.map((edge) => edge * scale);
          context.strokeRect(x0, y0, x1 - x0, y1 - y0);
          context.setLineDash([]);
        }
        if (this.landmarks[number]) this.drawLandmarks(context, number, frame, scale, fine);
      });
    }

    drawLandmarks(context, number, frame, scale, fine) {
      const all = this.landmarks[number], first = frame * POINTS * 2;
      if (first >= all.length || all[first] === NO_LANDMARK) return;
      const at = (point) => [all[first + 2 * point] / LANDMARK_UNITS * scale,
        all[first + 2 * point + 1] / LANDMARK_UNITS * scale];
      for (const [from, to, closed] of PARTS) {
        context.beginPath();
        for (let point = from; point <= to; point++) context.lineTo(...at(point));
        if (closed) context.closePath();
        context.strokeStyle = from >= MOUTH_FROM ? "#ff8f70" : "#ffffffb0";
        context.lineWidth = fine ? 0.7 : 1.2;
        context.stroke();
      }
    }

    drawStrips() {
      if (!this.pictures) return;
      for (const canvas of this.card.querySelectorAll("[data-strip]")) this.drawStrip(canvas);
    }

    // Tiles along the time axis, each with the frame at its middle.
    drawStrip(canvas) {
      const name = canvas.dataset.strip;
      const {width, height} = canvas.parentElement.getBoundingClientRect();
      if (!width) return;
      const aspect = name === "frames" ? this.data.size[0] / this.data.size[1] : 1;
      const count = clamp(Math.round(width / (height * aspect)), 1, this.data.frames);
      const context = fitCanvas(canvas, width, height);
      const tile = width / count;
      for (let k = 0; k < count; k++) {
        const frame = Math.floor((k + 0.5) / count * this.data.frames);
        this.drawPicture(context, name, frame, k * tile, 0, tile - TILE_GAP, height);
        if (name === "frames") drawTime(context, frame / this.data.fps, k * tile, height);
      }
    }
  }

  function drawTime(context, seconds, left, height) {
    context.font = "10px system-ui, sans-serif";
    const text = `${seconds.toFixed(1)} s`;
    context.fillStyle = "#0009";
    context.fillRect(left, height - 14, context.measureText(text).width + 8, 14);
    context.fillStyle = "#fffd";
    context.fillText(text, left + 4, height - 4);
  }

  // No face is a fact: hatched, so that it is not taken for a dark picture.
  function drawNothing(context, left, top, width, height) {
    context.fillStyle = "#1a1d23";
    context.fillRect(left, top, width, height);
    context.strokeStyle = "#2a2f38";
    context.beginPath();
    for (let x = left - height; x < left + width; x += 8) {
      context.moveTo(x, top + height);
      context.lineTo(x + height, top);
    }
    context.stroke();
  }

  // --- which card the keys move ---

  function activate(player) {
    if (active) active.card.classList.remove("active");
    active = player;
    active.card.classList.add("active");
  }

  function inView(player) {
    const box = player.card.getBoundingClientRect();
    return box.bottom > 80 && box.top < window.innerHeight - 80;
  }

  function current() {
    if (!active || !inView(active)) activate(players.find(inView) || players[0]);
    return active;
  }

  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("button, select, input, summary, a");
    if (!players.length || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && !busy) current().toggle();
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      if (event.target.closest("select")) return;
      const direction = event.key === "ArrowLeft" ? -1 : 1;
      const player = current();
      player.step(direction * (event.shiftKey ? Math.round(player.data.fps) : 1));
    } else if (event.key === "o" && current().card.querySelector(".overlay")) {
      current().card.querySelector(".overlay").click();
    } else return;
    event.preventDefault();
  });

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) players.find((player) => player.card === entry.target).start();
    }
  }, {rootMargin: "600px"});

  for (const card of document.querySelectorAll(".card")) {
    players.push(new Player(card));
    near.observe(card);
  }
})();
