"""Link rates and delays as people write them (100mbit, unlimited, 0.2ms), and the tc commands that give them to a link.

A token bucket filter lets `burst` bytes through at once and then `rate`; what does not fit waits in a queue of `latency`
seconds, beyond which packets are dropped. The rate counts whole Ethernet frames: of 1514 bytes a TCP segment carries 1448,
so that no program moves more than 0.956 of it in payload.

A delay is netem's (sch_netem, which small kernels lack), in front of the token bucket, at the sending end only: what --delay
says is the way from one host to another, a round trip takes twice that.
"""
import re
from errors import ClusterError

UNITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
UNLIMITED = None  # no token bucket at all
LOWEST, HIGHEST = 64 * 10**3, 100 * 10**9
LATENCY_MS = 200


def parse_rate(text):
    """Bits a second, or UNLIMITED."""
    if text == "unlimited":
        return UNLIMITED
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(kbit|mbit|gbit)", text.lower())
    if not match:
        hint = ""
        if re.fullmatch(r"[\d.]+[kmg]?(bps|bytes?|b)?", text.lower()):
            hint = " (bits a second, with the unit)"
        raise ClusterError(2, f"rate '{text}'; numbers like 500kbit, 100mbit, 2.5gbit or the word unlimited are allowed{hint}")
    rate = round(float(match[1]) * UNITS[match[2]])
    if not LOWEST <= rate <= HIGHEST:
        raise ClusterError(2, f"rate '{text}'; 64kbit to 100gbit is allowed, or unlimited")
    return rate


def parse_rates(text, count, each, option="--rate"):
    """`count` rates from one that holds for all, or from a list of exactly so many. `each` names what has one."""
    rates = [parse_rate(part) for part in text.split(",")]
    if len(rates) == 1:
        return rates * count
    if len(rates) != count:
        raise ClusterError(2, f"{option} has {len(rates)} rates for {count} {each}s; one, or one per {each}, is allowed")
    return rates


def rate_text(rate):
    if rate is UNLIMITED:
        return "unlimited"
    for unit in ("gbit", "mbit", "kbit"):
        if rate >= UNITS[unit]:
            return f"{rate / UNITS[unit]:.6f}".rstrip("0").rstrip(".") + unit
    return f"{rate}bit"


def rates_text(rates):
    texts = [rate_text(rate) for rate in rates]
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)


def parse_delay(text):
    """Microseconds."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(us|ms)", text.lower())
    delay_us = round(float(match[1]) * (1000 if match[2] == "ms" else 1)) if match else -1
    if not 0 <= delay_us <= 1000_000:
        raise ClusterError(2, f"--delay '{text}'; numbers like 50us or 0.2ms, at most 1000ms, are allowed")
    return delay_us


def qdisc_commands(device, rate, delay_us=0):
    """What, after `tc`, gives one end of a link its rate and delay, whatever it had before."""
    tbf = None if rate is UNLIMITED else f"tbf rate {rate}bit burst {burst_bytes(rate)} latency {LATENCY_MS}ms"
    if not delay_us:
        return [f"qdisc replace dev {device} root {tbf or 'noqueue'}"]
    commands = [f"qdisc replace dev {device} root noqueue",
                f"qdisc replace dev {device} root handle 1: netem delay {delay_us}us limit 100000"]
    return commands + ([f"qdisc add dev {device} parent 1:1 handle 10: {tbf}"] if tbf else [])


def burst_bytes(rate):
    """2.6 ms worth up to 100mbit, 1 ms from 1gbit on: a shorter one is lost when the kernel's timer is late on a busy machine,
    a longer one is a present after every pause. At 100mbit and 1gbit these are the 32 KiB and 128 KiB of our published figures."""
    return max(min(rate * 32768 // 10**8, 32768), rate * 131072 // 10**9, 4096)
