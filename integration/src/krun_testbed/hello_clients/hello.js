// node hello.js HOST PORT NAME: sends Node's ClientHello. It fails, as nobody answers; what it has sent is what counts.
const tls = require('node:tls');

const [host, port, servername] = process.argv.slice(2);
tls.connect({ host, port: Number(port), servername, ALPNProtocols: ['h2', 'http/1.1'] }).on('error', () => {});
