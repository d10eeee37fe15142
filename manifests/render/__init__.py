"""Renders the clips of the demo corpus and of the alignment tests, with their truth.

In reading order: `voice` (syllables as sound and as a mouth curve), `mouth` and `head` (somebody
saying them), `sounds`, `objects` and `stage` (things that sound when something happens to them),
`flash` (lamps and beeps, and the matrix of odd files that the alignment tests run
over), `encode` (pictures and sound into a file), `clips` (the table of the corpus and how one
row of it becomes a file), `kept` (what is there is not rendered again), `clock` (when things
happen in a file, read by the ffmpeg program).

The planted corpus: `planted_script` (bouts of words, mouth shapes), `planted_sounds` (timbres),
`planted_scenes` and `planted_bodies` (pictures), `planted` (its clips, and how one becomes a file).

Only `manifests.demo`, `manifests.planted` and tests import this package: it needs OpenCV,
scikit-image, soundfile and the bundled ffmpeg, which no other manifest does. Everything is a
function of a seed.
"""
