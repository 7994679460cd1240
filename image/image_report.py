"""What an image holds: its size and its ten largest parts. `python -m image.image_report IMAGE`.

Looks inside through Docker, with the image's own Python; a part is a package, the model, the function's code, or a top
folder of the base.
"""

import json
import subprocess
import sys

PARTS_SHOWN = 10
MEASURE = """
import json, os
divided = ("/", "/opt", "/opt/python", "/usr", "/usr/lib", "/var", "/var/lang", "/var/lang/lib")
sizes = {}
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {"proc", "sys", "dev"}
    for name in files:
        path = part = os.path.join(folder, name)
        while os.path.dirname(part) not in divided:
            part = os.path.dirname(part)
        sizes[part] = sizes.get(part, 0) + os.lstat(path).st_size
print(json.dumps(sizes))
"""
"""Runs in the image: bytes by part, a part being whatever lies directly in a folder that is worth dividing."""


def parts(image: str) -> dict[str, int]:
    """Bytes of each part of the image, by its path."""
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", image, "-c", MEASURE]
    answer: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def main() -> None:
    """Print the report."""
    image = sys.argv[1]
    size = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Size}}", image], check=True, capture_output=True, text=True
    )
    print(f"{image}: {int(size.stdout) / 1e6:,.0f} MB")
    largest = sorted(parts(image).items(), key=lambda item: -item[1])
    for path, size_in_bytes in largest[:PARTS_SHOWN]:
        print(f"{size_in_bytes / 1e6:8.1f} MB  {path}")
    print(
        f"{sum(size for _, size in largest[PARTS_SHOWN:]) / 1e6:8.1f} MB  the other {len(largest) - PARTS_SHOWN} parts"
    )


if __name__ == "__main__":
    main()
