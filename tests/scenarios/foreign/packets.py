"""Records the advertisements that arrive here (record FILE COUNT), and sends them again every 0.3 s for as long as it runs
and TRIGGER exists (send FILE TRIGGER replayed), or like ones with another counter (forged)."""
import os
import socket
import sys
import time

CARP = 112


def checksum(data):
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def forged(frame):
    """As who does not know the password makes it: the signature stays that of another counter."""
    carp = bytearray(frame[34:70])
    carp[6:8] = b"\0\0"
    carp[8:16] = os.urandom(8)
    carp[6:8] = checksum(carp)
    return frame[:34] + bytes(carp) + frame[70:]


what, file = sys.argv[1:3]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
wire.bind(("eth0", 0x0800))
if what == "record":
    frames = []
    while len(frames) < int(sys.argv[3]):
        frame = wire.recv(2048)
        if frame[23] == CARP:
            frames.append(frame.hex())
    with open(file, "w") as recorded:
        recorded.write("\n".join(frames))
else:
    trigger, manner = sys.argv[3:5]
    with open(file) as recorded:
        frames = [bytes.fromhex(line) for line in recorded.read().split()]
    at = 0
    while True:
        if os.path.exists(trigger):
            frame = frames[at % len(frames)]
            wire.send(forged(frame) if manner == "forged" else frame)
            at += 1
            time.sleep(0.3)
        else:
            time.sleep(0.005)
