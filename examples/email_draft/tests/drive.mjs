/**
 * Does what a person at the inbox does, in a real Chromium: opens an email, gets a draft, edits it, sends it; discards
 * another and leaves. Prints what happened as a line of JSON, and closes the browser when standard input ends.
 *
 *     node tests/drive.mjs <page's address> <chromium> <a new profile directory> <directory for screenshots>
 */
import { chromium } from "playwright-core";

const [address, executablePath, profile, pictures] = process.argv.slice(2);
const flags = [
  "no-sandbox",
  "disable-gpu",
  "disable-quic",
  "no-first-run",
  "disable-background-networking",
  "disable-component-update",
  "disable-sync",
];
const browser = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  viewport: { width: 1200, height: 800 },
  args: flags.map((flag) => `--${flag}`),
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(90_000);
  const complaints = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(address);

  await page.getByRole("button", { name: /Charged twice/ }).click();
  await page.screenshot({ path: `${pictures}/1-email.png` });
  await page.getByRole("button", { name: "Draft a reply" }).click();
  const reply = page.getByLabel("Reply to Ada Park");
  await reply.waitFor();
  await page.screenshot({ path: `${pictures}/2-draft.png` });
  const final =
    "Hi Ada,\n\nSorry about that! The second charge of March is refunded; it takes up to three days.\n\nBest,\nSupport";
  await reply.fill(final);
  await page.getByText("Edited", { exact: true }).waitFor();
  await page.screenshot({ path: `${pictures}/3-edited.png` });
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByRole("status").filter({ hasText: "Sent" }).waitFor();

  await page.locator("output[data-acknowledged='2'][data-waiting='0'][data-lost='0']").waitFor();
  await page.screenshot({ path: `${pictures}/4-sent.png` });

  await page.getByRole("button", { name: /reset link/ }).click();
  await page.getByRole("button", { name: "Draft a reply" }).click();
  await page.getByRole("button", { name: "Discard" }).click();
  // The page is left within the second in which events gather: it sends what waits as it goes.
  await page.goto("about:blank");
  console.log(JSON.stringify({ final, complaints }));
  await new Promise((seen) => process.stdin.once("end", seen).resume());
} finally {
  await browser.close();
}
