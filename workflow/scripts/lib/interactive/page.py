"""A page on this computer on which a person segments: box, scribbles, the method's answer, next object, file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from nicegui import run, ui
from PIL import Image

from lib.errors import BadInput
from lib.interactive import BACKGROUND, FOREGROUND, InteractiveMethod
from lib.interactive.annotation import Annotation

HOST = "127.0.0.1"  # nobody else may see the images
COLOURS = [(0, 158, 115), (86, 180, 233), (230, 159, 0), (204, 121, 167), (240, 228, 66), (0, 114, 178)]  # Okabe & Ito
WORK, INSIDE, OUTSIDE = (213, 94, 0), (255, 80, 80), (80, 140, 255)
TOOLS = {"box": "Box", "foreground": "Object", "background": "Background"}
HINTS = {
    "box": "Drag a box around one object.",
    "foreground": "Scribble inside the object where it is missed.",
    "background": "Scribble outside the object where too much is taken.",
}


def serve(
    cases: dict[str, str],
    open_case: Callable[[str], Annotation],
    methods: dict[str, Callable[[], InteractiveMethod]],
    folder: Path,
    port: int,
) -> None:
    """Serve the page until the process is ended.

    cases: name -> how it is called in the list. methods: name -> how to build one. folder: for the label maps.
    """

    @ui.page("/", title="segcross: annotate")
    def annotate() -> None:
        Page(cases, open_case, methods, folder)

    ui.run(host=HOST, port=port, reload=False, show=False, show_welcome_message=False)


class Page:
    """The page of one visitor: the widgets, and the case that they act on."""

    def __init__(self, cases, open_case, methods, folder) -> None:
        self.open_case, self.methods, self.folder = open_case, methods, folder
        self.points: list[tuple[float, float]] = []  # of the drag in progress
        self.busy = False
        self.work = open_case(next(iter(cases)))
        with ui.row().classes("items-center"):
            self.case = ui.select(cases, value=next(iter(cases)), label="Case", on_change=self._open).classes("w-56")
            self.method = ui.select(list(methods), value=next(iter(methods)), label="Method").classes("w-48")
            self.structure = ui.select(self.work.structures, value=self.work.structures[0], label="Structure")
            self.structure.classes("w-40")
            self.channel = ui.number("Channel", value=1, min=1, precision=0, on_change=self._draw).classes("w-20")
        with ui.row().classes("items-center"):
            self.tool = ui.toggle(TOOLS, value="box", on_change=lambda: self._say(HINTS[self.tool.value]))
            ui.button("Undo", on_click=lambda: self._do(self.work.undo)).props("outline")
            ui.button("Next object", on_click=self._accept)
            ui.button("Save", on_click=self._save).props("color=positive")
            self.message = ui.label(HINTS["box"]).mark("message")
        with ui.row().classes("items-center w-full no-wrap"):
            number = ui.label().classes("w-20")
            self.slider = ui.slider(min=0, max=1, value=0, on_change=self._draw).classes("w-96")
            number.bind_text_from(self.slider, "value", lambda at: f"Slice {at:.0f}")
            self.depth = ui.range(min=0, max=1, value={"min": 0, "max": 1}).classes("w-96")
            self.depth_label = ui.label().bind_text_from(
                self.depth, "value", lambda v: f"box through slices {v['min']} to {v['max']}"
            )
        self.picture = ui.interactive_image(
            on_mouse=self._mouse, events=["mousedown", "mousemove", "mouseup"], cross=False, sanitize=False
        )
        self.picture.style("height: 74vh; aspect-ratio: auto; image-rendering: pixelated; user-select: none")
        self.picture.props("draggable=false")
        self._show()

    @property
    def at(self) -> int:
        return int(self.slider.value or 0)

    def _open(self) -> None:
        self.work = self.open_case(self.case.value)
        self._show()

    def _show(self) -> None:
        """Fit the widgets to the case."""
        channels, slices = self.work.image.shape[:2]
        for widget in (self.slider, self.depth):
            widget.props(f"max={slices - 1}")
        self.slider.value = slices // 2
        self.depth.value = {"min": slices // 4, "max": slices - 1 - slices // 4}
        self.slider.set_visibility(slices > 1)
        self.depth.set_visibility(not self.work.flat)
        self.depth_label.set_visibility(not self.work.flat)
        self.channel.props(f"max={channels}")
        self.channel.set_visibility(channels > 1)
        self.tool.value = "box"
        self._draw()

    def _say(self, text: str) -> None:
        self.message.text = text

    async def _mouse(self, event) -> None:
        """Follow a drag; its end is a box or a scribble. Its points are places in the slice."""
        here = self.work.view.place(event.image_x, event.image_y)
        if event.type == "mousedown" and not self.busy:
            self.points = [here]
        elif event.type == "mousemove" and self.points and event.buttons:
            self.points.append(here)
            self.picture.content = self._trace()
        elif event.type == "mouseup" and self.points:
            points, self.points = [*self.points, here], []
            at, tool = self.at, self.tool.value
            if tool == "box":
                depth = None if self.work.flat else (self.depth.value["min"], self.depth.value["max"])
                build, corners = self.methods[self.method.value], (points[0], points[-1])
                if await self._do(lambda: self.work.start(build(), at, corners, depth)):
                    self.tool.value = "foreground"
            else:
                await self._do(lambda: self.work.mark(at, points, tool == "foreground"))

    async def _do(self, action: Callable[[], None]) -> bool:
        """Run an action beside the page, say how long it took or what is wrong, and draw; one at a time."""
        if self.busy:
            return False
        self.busy, started = True, time.perf_counter()
        self._say("Working …")
        try:
            await run.io_bound(action)
            self._say(f"{time.perf_counter() - started:.2f} s. {HINTS[self.tool.value]}")
            return True
        except BadInput as error:
            self._say(str(error))
            return False
        finally:
            self.busy = False
            self._draw()

    async def _accept(self) -> None:
        if await self._do(lambda: self.work.accept(self.structure.value)):
            self.tool.value = "box"
            self._say(HINTS["box"])

    async def _save(self) -> None:
        saved = []
        if not await self._do(lambda: saved.append(self.work.save(self.folder))):
            return
        rest = "" if self.work.box is None else " The object in work is not in it; press Next object first."
        self._say(f"Saved {saved[0]}.{rest}")

    def _draw(self) -> None:
        """The slice with accepted objects, the answer in work and the scribbles; the box as an overlay."""
        work, at = self.work, min(self.at, self.work.image.shape[1] - 1)
        work.channel = min(int(self.channel.value or 1), len(work.image)) - 1
        colours = self._greys(work.image[:, at])
        layers = [(mask[at], COLOURS[i % len(COLOURS)], 0.4) for i, mask in enumerate(work.masks)]
        layers.append((work.shown(at), WORK, 0.45))
        layers += [
            (work.scribbled(at) == kind, colour, 1.0) for kind, colour in ((FOREGROUND, INSIDE), (BACKGROUND, OUTSIDE))
        ]
        for where, colour, strength in layers:
            colours[where] = (1 - strength) * colours[where] + strength * np.array(colour)
        picture = Image.fromarray(work.view.picture(colours).astype(np.uint8)).resize(work.view.size, Image.NEAREST)
        self.picture.set_source(picture)
        self.picture.content = self._trace()

    def _greys(self, image: np.ndarray) -> np.ndarray:
        """(Y, X, 3) float of a slice (C, Y, X): colours of three channels, else the chosen channel in grey."""
        chosen = image if len(image) == 3 else image[self.work.channel][None]
        low, high = np.percentile(chosen, [1, 99])
        scaled = np.clip((chosen - low) / max(high - low, 1e-6), 0, 1) * 255
        return np.moveaxis(np.broadcast_to(scaled, (3, *image.shape[1:])), 0, -1).copy()

    def _trace(self) -> str:
        """SVG of the box and of the drag in progress."""
        shown, parts, corners = self.work.view.shown, [], self.work.corners(self.at)
        if self.points and self.tool.value == "box":
            corners = (*self.points[0], *self.points[-1])
        elif self.points:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(shown, self.points))
            colour = INSIDE if self.tool.value == "foreground" else OUTSIDE
            parts.append(f'<polyline points="{line}" fill="none" stroke="rgb{colour}" stroke-width="4"/>')
        if corners:
            (x, right), (y, bottom) = (
                sorted(side) for side in zip(shown(corners[:2]), shown(corners[2:]), strict=True)
            )
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{bottom - y:.1f}" '
                f'fill="none" stroke="rgb{WORK}" stroke-width="2"/>'
            )
        return "".join(parts)
