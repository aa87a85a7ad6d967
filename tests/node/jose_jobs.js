// Signs and checks tokens with jose; see tests/it/tokens/clients.rs for what a job holds.
const fs = require('node:fs');
const jose = require('jose');

function key(job) {
  if (job.alg.startsWith('HS')) return new TextEncoder().encode(job.key);
  return job.do === 'sign' ? jose.importPKCS8(job.key, job.alg) : jose.importSPKI(job.key, job.alg);
}

async function run(job) {
  try {
    if (job.do === 'sign') {
      const jwt = new jose.SignJWT(job.claims).setProtectedHeader({ alg: job.alg, ...job.header });
      return { token: await jwt.sign(await key(job)) };
    }
    if (job.do === 'encrypt') {
      const jwe = new jose.CompactEncrypt(new TextEncoder().encode(job.text));
      const secret = new TextEncoder().encode(job.key);
      return { token: await jwe.setProtectedHeader(job.header).encrypt(secret) };
    }
    const { payload } = await jose.jwtVerify(job.token, await key(job), { algorithms: [job.alg] });
    return { claims: payload };
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  }
}

async function main() {
  const results = [];
  for (const job of JSON.parse(fs.readFileSync(0, 'utf8'))) results.push(await run(job));
  process.stdout.write(JSON.stringify(results));
}

main();
