// Prints a file of messages (docs/WIRE.md, "Versions") as JSON, one a line: topic, payload. No package is needed.
const data = require("fs").readFileSync(process.argv[2]);
let at = 0;
function take(n) {
  if (at + n > data.length) throw new Error("cut off");
  return data.subarray(at, (at += n));
}
const uint = (n) => (n === 8 ? Number(take(8).readBigUInt64BE()) : take(n).readUIntBE(0, n));
const int = (n) => (n === 8 ? Number(take(8).readBigInt64BE()) : take(n).readIntBE(0, n));
const text = (n) => take(n).toString("utf8");
const list = (n) => Array.from({ length: n }, value);
const map = (n) => Object.fromEntries(Array.from({ length: n }, () => [value(), value()]));
function value() {
  const b = uint(1);
  if (b < 0x80 || b >= 0xe0) return b < 0x80 ? b : b - 0x100;
  if (b < 0xc0) return b < 0x90 ? map(b & 15) : b < 0xa0 ? list(b & 15) : text(b & 31);
  if (b === 0xc0) return null;
  if (b === 0xc2 || b === 0xc3) return b === 0xc3;
  if (b >= 0xc4 && b <= 0xc6) return take(uint(1 << (b - 0xc4))).toString("hex"); // binary
  if (b === 0xca || b === 0xcb) return b === 0xca ? take(4).readFloatBE() : take(8).readDoubleBE();
  if (b >= 0xcc && b <= 0xcf) return uint(1 << (b - 0xcc));
  if (b >= 0xd0 && b <= 0xd3) return int(1 << (b - 0xd0));
  if (b >= 0xd9 && b <= 0xdb) return text(uint(1 << (b - 0xd9)));
  if (b >= 0xdc) return (b < 0xde ? list : map)(uint(b & 1 ? 4 : 2));
  throw new Error("not of this wire");
}
while (at < data.length) {
  const topic = take(8).readUInt32LE(); // the payload's length is not needed: it is one value
  console.log(JSON.stringify([text(topic), value()]));
}
