"""A process that fetches scenes for tests, many at once, to be killed, or onto a small disk."""

import json

WORKER = """
    import json, os, signal, subprocess, sys
    from dataclasses import replace
    import pystac
    import darts_utils.store
    from darts_acquisition import decode, raw_scene, scene_writer, stac_scenes
    from darts_acquisition.stac_sources import CDSE_SOURCE

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    def die_at_second(function):
        calls = []
        def call(*args, **kwargs):
            calls.append(1)
            return die() if len(calls) == 2 else function(*args, **kwargs)
        return call

    def die_halfway(path, grid):
        yield next(decode.decode_digital_numbers(path, grid))
        die()

    def be_killed_at(where):
        # Strips of 64 rows, so that a kill between two of them leaves a band half written.
        decode.STRIP_PX = 64
        if where == "half a band":
            stac_scenes.decode_digital_numbers = die_halfway
        elif where == "second band":
            scene_writer.zarr.create_array = die_at_second(scene_writer.zarr.create_array)
        elif where == "rename":
            darts_utils.store._flush = die
        elif where == "list of bands":
            raw_scene.RawScene.write_bands = die

    def fetch(job, bands):
        if job["killed_at"]:
            be_killed_at(job["killed_at"])
        if job["disk_kb"]:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={job['disk_kb']}k", "tmpfs", job["store"]], check=True)
        source = replace(CDSE_SOURCE, s3_endpoint=job["endpoint"], requests_per_second=None, timeout_s=20)
        item = pystac.Item.from_dict(json.load(open(job["item"])))
        try:
            outcome = list(stac_scenes.download_scene(item, job["store"], source, bands))
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        left = os.listdir(job["store"])
        if job["disk_kb"]:
            # Fails where a file is still held open, whose space would not be free yet.
            subprocess.run(["umount", job["store"]], check=True)
        print(json.dumps([outcome, left]), flush=True)

    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for bands in job["wishes"]:
            children.append(os.fork())
            if children[-1] == 0:
                fetch(job, bands)
                os._exit(0)
        print(json.dumps(children), flush=True)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        print(json.dumps(statuses), flush=True)
"""


class Worker:
    """A process that has everything imported, which takes longer than all the rest, and forks one for each fetch."""

    def __init__(self, process, may_mount, item):
        self.process, self.may_mount, self.item = process, may_mount, item

    def start(self, store, endpoint, *wishes, killed_at=None, disk_kb=None):
        job = {"store": str(store), "endpoint": endpoint, "wishes": wishes, "item": str(self.item)}
        self.process.stdin.write(json.dumps(job | {"killed_at": killed_at, "disk_kb": disk_kb}) + "\n")
        self.process.stdin.flush()

    def finish(self):
        """Wait; returns the signals that ended the processes (0: none) and what each that lived to the end prints."""
        lines = []
        while sum(isinstance(line[0], int) for line in lines) < 2:
            lines.append(json.loads(self.process.stdout.readline()))
        numbers = [line for line in lines if isinstance(line[0], int)]
        return numbers[1], [line for line in lines if not isinstance(line[0], int)]
