"""Fetch a few drawn pictures with img2dataset from a server on this machine: python fetch.py FOLDER (see README.md)."""

import http.server
import json
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
from img2dataset import download


def picture(number):
    pixels = np.random.default_rng(number).integers(0, 255, (4, 5, 3), np.uint8)
    return cv2.imencode(".png", cv2.resize(pixels, (40, 32)))[1].tobytes()


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip("/")
        if name == "absent.png":
            self.send_error(404)
            return
        body = b"<html>no picture</html>" if name == "page.png" else picture(int(name.split(".")[0]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *a):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8765), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = ["0.png", "1.png", "absent.png", "2.png", "page.png", "3.png", "4.png", "5.png"]
    rows = [
        json.dumps(
            {
                "url": f"http://127.0.0.1:8765/{name}",
                "caption": f"picture {name}, café",
                "place": "land" if i % 2 else "water",
            }
        )
        for i, name in enumerate(names)
    ]
    Path("list.jsonl").write_text("\n".join(rows))
    download(
        processes_count=1,
        thread_count=1,
        url_list="list.jsonl",
        input_format="jsonl",
        url_col="url",
        caption_col="caption",
        output_folder=sys.argv[1],
        output_format="webdataset",
        number_sample_per_shard=4,
        image_size=32,
        resize_mode="no",
        save_additional_columns=["place"],
        retries=0,
        enable_wandb=False,
        encode_quality=80,
        disallowed_header_directives=[],
        min_image_size=0,
    )
    server.shutdown()
