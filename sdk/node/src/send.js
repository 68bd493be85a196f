// One request over HTTP. Not by `fetch`: it knows no sockets, and needs more addresses than many a run may have.

import { request as plain } from "node:http";
import { request as secure } from "node:https";

/** Resolves with status, headers and body, whatever the status is. */
export function send(url, options, content) {
  const request = new URL(url).protocol === "https:" ? secure : plain;
  return new Promise((resolve, reject) => {
    const sent = request(url, options, (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk)).on("error", reject);
      answer.on("end", () => {
        const headers = new Headers();
        for (let i = 0; i < answer.rawHeaders.length; i += 2) {
          headers.append(answer.rawHeaders[i], answer.rawHeaders[i + 1]);
        }
        resolve({ status: answer.statusCode, headers, body: Buffer.concat(chunks) });
      });
    });
    sent.on("error", reject).end(content);
  });
}
