// OpenFeature with the provider of its remote evaluation protocol (OFREP).
import * as exam from "./exam.mjs";

const { OpenFeature } = await exam.load("@openfeature/server-sdk");
const { OFREPProvider } = await exam.load("@openfeature/ofrep-provider");

await OpenFeature.setProviderAndWait(
  new OFREPProvider({ baseUrl: exam.url, headers: [["Authorization", `Bearer ${exam.key}`]] }),
);
const client = OpenFeature.getClient();

await exam.sit({
  flags: async () => {
    const skill = exam.model.replace("rlaas::", "");
    const evaluated = await client.getStringDetails(skill, "none", { targetingKey: "thread-7" });
    exam.check(evaluated.value === `${skill}@v1` && evaluated.variant, evaluated);
  },
  unknown_model: async () => {
    const evaluated = await client.getStringDetails("unheard-of", "none", { targetingKey: "thread-7" });
    exam.check(evaluated.value === "none" && evaluated.errorCode === "FLAG_NOT_FOUND", evaluated);
  },
});
