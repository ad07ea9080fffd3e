import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

// The result is committed and embedded: names are stable, so that a change shows as a change of the same file.
export default defineConfig(({ mode }) => ({
  base: './',
  plugins: [svelte()],
  resolve: mode === 'test' ? { conditions: ['browser'] } : {},
  build: {
    target: 'es2022',
    chunkSizeWarningLimit: 1024,
    rollupOptions: {
      output: { entryFileNames: 'assets/page.js', assetFileNames: 'assets/page[extname]', codeSplitting: false },
    },
  },
  server: { proxy: { '/web': 'http://127.0.0.1:7880', '/rtc': { target: 'http://127.0.0.1:7880', ws: true } } },
  test: { environment: 'happy-dom', include: ['src/**/*.test.ts'] },
}));
