// The exam of tests/clients/python/exam.py for clients of Node: the same questions, answers, variables and outcomes.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const environment = createRequire(`${process.env.RLAAS_CLIENTS}/package.json`);
export const load = (name) => import(pathToFileURL(environment.resolve(name)).href);

export const [url, key, model] = [process.env.RLAAS_URL, process.env.RLAAS_KEY, process.env.RLAAS_MODEL];
export const interactionId = process.env.RLAAS_INTERACTION_ID;
export const unknown = "rlaas::unheard-of";
export const hello = "I was charged twice.";
export const answer = "Dear Ada, we are on it.";
export const [oneCity, twoCities] = ["What is the weather in Oslo?", "What is the weather in Oslo and in Rome?"];
export const [oneReport, twoReports] = ["Oslo: 7 degrees.", "Oslo: 7 degrees. Rome: 7 degrees."];
export const who = "Ada Park is 36 years old. Who is it?";
export const person = { name: "Ada Park", age: 36 };
export const tooLong = "word ".repeat(24_000);
export const [whatIsSeen, seen] = ["What do you see?", "I see an image."];
export const image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC";

class RefusedClearly extends Error {}

export const reportWeather = ({ city }) => `${city}: 7 degrees.`;

export function check(condition, what) {
  if (!condition) throw new Error(`saw ${JSON.stringify(what)}`.slice(0, 500));
}

export const equal = (first, second) => check(JSON.stringify(first) === JSON.stringify(second), first);

// The call has to fail in the client's own way, which `fits` knows.
export async function expectRefusal(call, fits) {
  const error = await call().then(
    (value) => check(false, value),
    (raised) => raised,
  );
  check(fits(error), { name: error.name, message: error.message, status: error.status ?? error.statusCode });
}

export async function seeImage(call) {
  try {
    equal(await call(), seen);
  } catch (error) {
    if ((error.status ?? error.statusCode) === 400 && /image/i.test(error.message))
      throw new RefusedClearly(error.message);
    throw error;
  }
}

export async function sit(functions) {
  for (const feature of process.env.RLAAS_FEATURES.split(" ")) {
    if (!(feature in functions)) continue;
    const line = { feature, outcome: "passed", what: "", output_id: null };
    try {
      line.output_id = (await functions[feature]()) ?? null;
    } catch (error) {
      line.outcome = error instanceof RefusedClearly ? "refused_clearly" : "failed";
      line.what =
        line.outcome === "failed" ? `${error.name}: ${error.message}\n${error.stack}`.slice(0, 2000) : error.message;
    }
    process.stdout.write(`\n${JSON.stringify(line)}\n`);
  }
}
