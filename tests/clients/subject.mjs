// As subject.py and checks.py: what clients are asked for, and what runs their checks.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { z } from "zod";

export const MODEL = "served";
export const KEY = "none";
export const QUESTION = "What does the fox do?";
export const ANSWER = "the quick brown fox";
export const ANSWER_AFTER_TOOL = "dog runs into the river";
export const WEATHER = "sunny";
export const Review = z.object({ sentiment: z.enum(["positive", "negative"]), stars: z.int() });
export const City = z.object({ city: z.enum(["Paris", "Rome"]) });

export const same = (found, expected) => assert.deepEqual(found, expected);

export async function run(name, apis) {
  const found = {};
  for (const [api, checks] of Object.entries(apis)) {
    found[api] = {};
    for (const [check, call] of Object.entries(checks)) {
      found[api][check] = {};
      for (const argument of process.argv.slice(2)) {
        const [door, url] = argument.split(/=(.*)/s);
        found[api][check][door] = await call(url).then(() => null, (error) => String(error).slice(0, 600));
      }
    }
  }
  const { version } = JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url)));
  console.log(JSON.stringify({ version, apis: found }));
  process.exit();
}
