// Signs and checks tokens with jsonwebtoken; see tests/it/tokens/clients.rs for what a job holds.
const fs = require('node:fs');
const jwt = require('jsonwebtoken');

function run(job) {
  try {
    if (job.do === 'sign') {
      const options = { algorithm: job.alg, header: { alg: job.alg, ...job.header }, noTimestamp: true };
      return { token: jwt.sign(job.claims, job.key, options) };
    }
    return { claims: jwt.verify(job.token, job.key, { algorithms: [job.alg] }) };
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  }
}

const jobs = JSON.parse(fs.readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(jobs.map(run)));
