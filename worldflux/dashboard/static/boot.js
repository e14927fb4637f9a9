// Starts the page; where the server or a proxy refuses its script, says so instead of nothing.

import("./page.js").catch(async (error) => {
  const place = document.getElementById("connection");
  place.className = "connection lost";
  place.textContent = `The page's script did not load (${error.message}). Behind a proxy, start the dashboard with: worldflux dashboard --allow-host ${location.hostname}`;
});
