"""A TCP proxy that can be told to misbehave: cut, delay, lose replies, break off in the middle of one."""

import asyncio
import threading
from typing import Literal

Mode = Literal["pass", "cut", "delay", "lose replies", "truncate"]
CHUNK = 64 * 1024
DELAY_SECONDS = 0.15


class Proxy:
    """Listens on `port` and passes everything on to `target`, both of this machine. Runs in a thread of its own."""

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
        self.mode: Mode = "pass"
        self.delay_seconds = DELAY_SECONDS
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listening = threading.Event()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def behave(self, mode: Mode) -> None:
        """From now on. What breaks a connection breaks those that are open."""
        self.mode = mode
        if mode == "cut":
            self._loop.call_soon_threadsafe(self._close_all)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self._port))
        self._listening.set()
        self._loop.run_forever()

    def _close_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "cut":
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        asks = asyncio.create_task(self._pump(reader, far_writer, replies=False))
        answers = asyncio.create_task(self._pump(far_reader, writer, replies=True))
        await asyncio.wait({asks, answers}, return_when=asyncio.FIRST_COMPLETED)
        for pump in (asks, answers):
            pump.cancel()
        for side in (writer, far_writer):
            self._open.discard(side)
            side.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        try:
            while data := await reader.read(CHUNK):
                match self.mode:
                    case "lose replies" if replies:
                        return  # what was asked for has happened; nobody hears of it
                    case "truncate" if replies:
                        writer.write(data[: len(data) // 2])
                        await writer.drain()
                        return
                    case "delay":
                        await asyncio.sleep(self.delay_seconds)
                writer.write(data)
                await writer.drain()
        except (ConnectionError, OSError):
            return
